"""Where a benchmark's files should be and what they should hold, read from its config."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from clearclip.errors import UserError

PREPARE = "prepare it as datasets/README.md says"
#: How a dataset's masks are made; all others come with the dataset.
_MASK_REMEDIES = {
    "COCOObjectDataset": "make the masks with datasets/cvt_coco_object.py",
    "COCOStuffDataset": "make the masks with MMSegmentation's coco_stuff164k.py (see datasets/README.md)",
    "CityscapesDataset": "make the masks with MMSegmentation's cityscapes.py (see datasets/README.md)",
    "PascalContext60Dataset": "make the masks with MMSegmentation's pascal_context.py (see datasets/README.md)",
    "PascalContext59Dataset": "make the masks with MMSegmentation's pascal_context.py (see datasets/README.md)",
}


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark's files are and what they should hold, read from a config.

    Attributes:
        name: the config's ``dataset_name``, else the dataset's class.
        root: the dataset's root.
        images, masks: folders.
        image_suffix, mask_suffix: what follows an image's name.
        list_file: names of the images, or None where the folder is the list.
        classes: number of classes.
        reduced: whether id 0 in a mask is ignored and the others move down by one.
        ignore: the id that is ignored.
        expected: number of images of the published benchmark, or None.
        mask_remedy: how the masks are made.
    """

    name: str
    root: Path
    images: Path
    masks: Path
    image_suffix: str
    mask_suffix: str
    list_file: Path | None
    classes: int
    reduced: bool
    ignore: int
    expected: int | None
    mask_remedy: str

    @classmethod
    def from_config(cls, cfg: Any) -> Benchmark:
        """Read ``cfg.test_dataloader.dataset``.

        Raises:
            UserError: the dataset's class is unknown or none that this check understands.
        """
        dataset = cfg["test_dataloader"]["dataset"]
        kind = dataset.get("type")
        kind = kind if inspect.isclass(kind) else DATASETS.get(str(kind))
        if kind is None or not issubclass(kind, BaseSegDataset):
            raise UserError(
                f"dataset type {dataset.get('type')!r} is none of MMSegmentation's or this project's; "
                "correct test_dataloader.dataset.type"
            )

        def setting(name: str) -> Any:
            return dataset[name] if name in dataset else _default(kind, name)

        root = dataset.get("data_root") or ""
        prefix = setting("data_prefix")
        if not isinstance(prefix, dict):
            raise UserError(f"data_prefix {prefix!r} of {kind.__name__} must be a dict with img_path and seg_map_path")
        classes = (dataset.get("metainfo") or {}).get("classes") or kind.METAINFO.get("classes")
        if classes is None:
            raise UserError(f"dataset type {kind.__name__} has no class names; give it metainfo=dict(classes=[...])")
        return cls(
            name=cfg.get("dataset_name") or kind.__name__,
            root=Path(root),
            images=Path(root, prefix.get("img_path") or ""),
            masks=Path(root, prefix.get("seg_map_path") or ""),
            image_suffix=setting("img_suffix"),
            mask_suffix=setting("seg_map_suffix"),
            list_file=Path(root, dataset["ann_file"]) if dataset.get("ann_file") else None,
            classes=len(classes),
            reduced=setting("reduce_zero_label"),
            ignore=setting("ignore_index"),
            expected=cfg.get("expected_images"),
            mask_remedy=_MASK_REMEDIES.get(kind.__name__, PREPARE),
        )

    @property
    def valid_ids(self) -> np.ndarray:
        """(256,) bool: the ids that a mask file may hold."""
        valid = np.zeros(256, bool)
        valid[: self.classes + self.reduced] = True
        valid[self.ignore] = True
        return valid


def _default(kind: type, name: str) -> Any:
    """A constructor argument's default, from the first class of the MRO that names it."""
    for base in kind.__mro__:
        argument = inspect.signature(base.__init__).parameters.get(name)
        if argument is not None and argument.default is not inspect.Parameter.empty:
            return argument.default
    raise UserError(f"dataset type {kind.__name__} needs {name}; give it in test_dataloader.dataset")

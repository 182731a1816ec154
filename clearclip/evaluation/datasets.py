"""The datasets that MMSegmentation lacks, with its names and palettes; what ConcatDataset and RepeatDataset hold."""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmseg.datasets import (
    BaseSegDataset,
    COCOStuffDataset,
    PascalContextDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)
from mmseg.registry import DATASETS

from clearclip import miniature
from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path


@DATASETS.register_module()
class PascalVOC20Dataset(PascalVOCDataset):
    """PASCAL VOC 2012 without its background: label 0 is ignored, 1..20 become 0..19."""

    METAINFO = dict(
        classes=PascalVOCDataset.METAINFO["classes"][1:],
        palette=PascalVOCDataset.METAINFO["palette"][1:],
    )

    def __init__(self, ann_file: str, reduce_zero_label: bool = True, **kwargs):
        super().__init__(ann_file=ann_file, reduce_zero_label=reduce_zero_label, **kwargs)


@DATASETS.register_module()
class PascalContext60Dataset(PascalContextDataset):
    """PASCAL Context with background (label 0)."""


@DATASETS.register_module()
class PascalContext59Dataset(PascalContextDataset59):
    """PASCAL Context without background: label 0 is ignored, 1..59 become 0..58."""


@DATASETS.register_module()
class COCOObjectDataset(BaseSegDataset):
    """COCO-Object: background (0) and COCO's 80 things (1..80), masks made by ``datasets/cvt_coco_object.py``."""

    METAINFO = dict(
        classes=("background", *COCOStuffDataset.METAINFO["classes"][:80]),
        palette=[[0, 0, 0], *COCOStuffDataset.METAINFO["palette"][:80]],
    )

    def __init__(self, img_suffix: str = ".jpg", seg_map_suffix: str = "_instanceTrainIds.png", **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


@DATASETS.register_module()
class MappedDataset(BaseSegDataset):
    """Data of your own whose masks hold other ids than 0, 1, 2, …, or colours.

    Args:
        ids: for each class its id in the masks, or a list of ids that become one class; or
        colours: for each class its [red, green, blue] in the masks, or a list of such.
        skipped: ids or colours that do not count. Any that is named nowhere is an error, which names the mask.

    Raises:
        UserError: these do not fit together.
    """

    def __init__(self, ids: list | None = None, colours: list | None = None, skipped: Sequence = (), **kwargs):
        if (ids is None) == (colours is None):
            raise UserError("MappedDataset needs either ids or colours: for each class what the masks have for it")
        given, shape, self.coloured = (ids, (), False) if colours is None else (colours, (3,), True)
        groups = [one if np.ndim(one) > len(shape) else [one] for one in given]
        self.values = np.array([value for group in (*groups, skipped) for value in group])
        most, said = 255 if self.coloured else 65535, f"MappedDataset has {given}, and skips {list(skipped)}"
        whole = self.values.shape[1:] == shape and self.values.dtype.kind == "i"
        if not whole or self.values.min() < 0 or self.values.max() > most:
            what = "[red, green, blue]" if self.coloured else "an id"
            raise UserError(f"{said}: give {what} of 0 to {most} for each class, or a list of several")
        if len(np.unique(self.values, axis=0)) < len(self.values):
            raise UserError(f"{said}: one of them twice; remove it")
        self.labels = [label for label, group in enumerate(groups) for _ in group]
        super().__init__(**kwargs)

    def get_label_map(self, new_classes: Sequence[str]) -> dict[int, int]:
        """MMSegmentation's map from ids to labels; what it does not mention keeps its number."""
        if len(new_classes) != self.labels[-1] + 1:
            fault = f"MappedDataset says what {self.labels[-1] + 1} classes are in the masks, and metainfo has"
            raise UserError(f"{fault} {len(new_classes)}; give both the same number")
        ids = range(len(self.values)) if self.coloured else self.values.tolist()
        foreign = dict.fromkeys(range(len(new_classes)), max(len(new_classes), self.ignore_index) + 1)
        return {**foreign, **dict.fromkeys(ids, self.ignore_index), **dict(zip(ids, self.labels, strict=False))}

    def mask_ids(self, mask: np.ndarray) -> np.ndarray:
        """The ids in a decoded mask: its own, or the place of each of its colours among those named here.

        Args:
            mask: (H, W), or (H, W, 3 or 4) with blue first, as MMCV decodes files.

        Returns:
            (H, W) unsigned.

        Raises:
            UserError: a mask without colours, or another colour.
        """
        if not self.coloured:
            return mask
        if mask.ndim != 3 or mask.dtype != np.uint8:
            raise UserError(
                f"has shape {mask.shape} of {mask.dtype}, not three channels of 8 bits; give ids, not colours"
            )
        codes = mask[..., :3] @ np.array([1, 1 << 8, 1 << 16], np.int32)
        table = np.full(1 << 24, len(self.values), np.uint16)
        table[self.values @ [1 << 16, 1 << 8, 1]] = range(len(self.values))
        found = table[codes]
        wrong = found == len(self.values)
        if wrong.any():
            other = mask[wrong][0, 2::-1].tolist()
            raise UserError(f"has the colour {other}, which is neither a class nor skipped; correct colours or skipped")
        return found


@DATASETS.register_module()
class MiniatureDataset(BaseSegDataset):
    """The bundled benchmark of drawn scenes (see ``clearclip/miniature``)."""

    METAINFO = dict(classes=tuple(miniature.CLASSES), palette=[list(colour) for colour in miniature.PALETTE])

    def __init__(self, img_suffix: str = ".png", seg_map_suffix: str = ".png", **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


def plain_settings(settings: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """The settings of the datasets that ConcatDataset and RepeatDataset hold, or these; to be read or changed."""
    inner = settings.get("datasets") or [settings["dataset"]] if {"datasets", "dataset"} & {*settings} else None
    return [settings] if inner is None else [one for part in inner for one in plain_settings(part)]


def build_dataset(settings: MutableMapping[str, Any]) -> Any:
    """A dataset to be tested, plain or wrapped, from a config.

    Raises:
        UserError: a list file that is no UTF-8. What MMSegmentation raises on wrong settings is passed on.
    """
    settings = copy.deepcopy(settings)
    for plain in plain_settings(settings):
        # MMEngine cannot serialise an empty list.
        plain.update(test_mode=True, serialize_data=False)
        prefix = plain.get("data_prefix") or {}
        for part, name in ((plain, "data_root"), (plain, "ann_file"), *((prefix, name) for name in prefix)):
            if str(part.get(name)).startswith("~"):
                part[name] = str(user_path(part[name]))
    try:
        return DATASETS.build(settings)
    except UnicodeDecodeError as error:
        files = ", ".join(str(plain.get("ann_file")) for plain in plain_settings(settings))
        raise UserError(f"list file {files} is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def plain_datasets(dataset: Any, repeated: bool = False) -> list[BaseSegDataset]:
    """The datasets that ConcatDataset and RepeatDataset hold, or this one; ``repeated`` as often as they come.

    Raises:
        UserError: another kind.
    """
    if isinstance(dataset, BaseSegDataset):
        return [dataset]
    if not isinstance(dataset, ConcatDataset | RepeatDataset):
        raise UserError(
            f"{type(dataset).__name__} is no dataset that can be evaluated: use a BaseSegDataset, or ConcatDataset or "
            "RepeatDataset of some"
        )
    single = isinstance(dataset, RepeatDataset)
    parts = [dataset.dataset] * (dataset.times if repeated else 1) if single else dataset.datasets
    return [one for part in parts for one in plain_datasets(part, repeated)]


def source_of(dataset: BaseSegDataset) -> str:
    """The list file that names the images, or their folder."""
    return dataset.ann_file or dataset.data_prefix["img_path"]


def entries(dataset: Any) -> Iterator[tuple[BaseSegDataset, dict[str, Any]]]:
    """The plain dataset and the information of each image, in order; to be read only."""
    for part in plain_datasets(dataset, repeated=True):
        count = len(part)  # a lazy dataset is read now
        # get_data_info copies deeply, all of a label_map with each image.
        for info in part.data_list or map(part.get_data_info, range(count)):
            yield part, info

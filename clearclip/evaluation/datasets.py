"""The datasets that MMSegmentation lacks, with its names and palettes; what ConcatDataset and RepeatDataset hold."""

from __future__ import annotations

import copy
import itertools
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

    def __init__(self, ids: list | None = None, colours: list | None = None, skipped: Sequence = (), **kwargs: Any):
        if (ids is None) == (colours is None):
            raise UserError("MappedDataset needs either ids or colours: for each class what the masks have for it")
        self.coloured = colours is not None
        class_values = colours if self.coloured else ids
        # A class may be given one id or colour, or a list of several.
        depth_of_one_value = 1 if self.coloured else 0
        groups = [group if np.ndim(group) > depth_of_one_value else [group] for group in class_values]
        self.values = np.array(list(itertools.chain(*groups, skipped)))
        self._check_values(f"MappedDataset has {class_values}, and skips {list(skipped)}")
        #: The label of each value; those that are skipped come last and have none.
        self.labels: list[int] = []
        for label, group in enumerate(groups):
            self.labels += [label] * len(group)
        super().__init__(**kwargs)

    def _check_values(self, description: str) -> None:
        """Raise a UserError, which begins with ``description``, where values are no ids or colours, or come twice."""
        largest, channels, expected = 65535, 0, "an id"
        if self.coloured:
            largest, channels, expected = 255, 3, "[red, green, blue]"
        are_whole = self.values.shape[1:] == (channels,) * bool(channels) and self.values.dtype.kind == "i"
        if not are_whole or self.values.min() < 0 or self.values.max() > largest:
            raise UserError(f"{description}: give {expected} of 0 to {largest} for each class, or a list of several")
        if len(np.unique(self.values, axis=0)) < len(self.values):
            raise UserError(f"{description}: one of them twice; remove it")

    def get_label_map(self, new_classes: Sequence[str]) -> dict[int, int]:
        """MMSegmentation's map from ids to labels; what it does not mention keeps its number."""
        class_count = self.labels[-1] + 1
        if len(new_classes) != class_count:
            raise UserError(
                f"MappedDataset says what {class_count} classes are in the masks, and metainfo has {len(new_classes)}; "
                "give both the same number"
            )
        # Colours are replaced by their position among the values before labels are looked up.
        mask_ids = list(range(len(self.values))) if self.coloured else self.values.tolist()
        # Ids below the number of classes that no class has must not pass for labels: they become one that is unknown.
        unknown_label = max(class_count, self.ignore_index) + 1
        label_map = dict.fromkeys(range(class_count), unknown_label)
        label_map.update(dict.fromkeys(mask_ids, self.ignore_index))
        label_map.update(zip(mask_ids, self.labels, strict=False))
        return label_map

    def mask_ids(self, mask: np.ndarray) -> np.ndarray:
        """The ids in a decoded mask: its own, or the index of each of its colours among those named here.

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
        # One number for each colour, and a table of all of them: a search per pixel would take minutes.
        colour_codes = mask[..., :3] @ np.array([1, 1 << 8, 1 << 16], np.int32)
        unknown = len(self.values)
        index_of_code = np.full(1 << 24, unknown, np.uint16)
        index_of_code[self.values @ [1 << 16, 1 << 8, 1]] = range(len(self.values))
        indexes = index_of_code[colour_codes]
        is_unknown = indexes == unknown
        if is_unknown.any():
            colour = mask[is_unknown][0, 2::-1].tolist()
            raise UserError(
                f"has the colour {colour}, which is neither a class nor skipped; correct colours or skipped"
            )
        return indexes


@DATASETS.register_module()
class MiniatureDataset(BaseSegDataset):
    """The bundled benchmark of drawn scenes (see ``clearclip/miniature``)."""

    METAINFO = dict(classes=tuple(miniature.CLASSES), palette=[list(colour) for colour in miniature.PALETTE])

    def __init__(self, img_suffix: str = ".png", seg_map_suffix: str = ".png", **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


def plain_settings(settings: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """The settings of the datasets that ConcatDataset and RepeatDataset hold, or these; to be read or changed."""
    if "datasets" not in settings and "dataset" not in settings:
        return [settings]
    members: list[MutableMapping[str, Any]] = []
    # Wrappers may hold wrappers.
    for inner_settings in settings.get("datasets") or [settings["dataset"]]:
        members += plain_settings(inner_settings)
    return members


def build_dataset(settings: MutableMapping[str, Any]) -> Any:
    """A dataset to be tested, plain or wrapped, from a config.

    Raises:
        UserError: a list file that is no UTF-8. What MMSegmentation raises on wrong settings is passed on.
    """
    settings = copy.deepcopy(settings)
    for dataset_settings in plain_settings(settings):
        # MMEngine cannot serialise an empty list.
        dataset_settings.update(test_mode=True, serialize_data=False)
        _expand_home(dataset_settings, ("data_root", "ann_file"))
        folders = dataset_settings.get("data_prefix") or {}
        _expand_home(folders, tuple(folders))
    try:
        return DATASETS.build(settings)
    except UnicodeDecodeError as error:
        files = ", ".join(str(dataset_settings.get("ann_file")) for dataset_settings in plain_settings(settings))
        raise UserError(f"list file {files} is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def _expand_home(settings: MutableMapping[str, Any], names: Sequence[str]) -> None:
    """Replace a leading ``~`` in these paths: MMEngine would take it for a folder's name."""
    for name in names:
        if str(settings.get(name)).startswith("~"):
            settings[name] = str(user_path(settings[name]))


def plain_datasets(dataset: Any, repeated: bool = False) -> list[BaseSegDataset]:
    """The datasets that ConcatDataset and RepeatDataset hold, or this one; ``repeated`` as often as they come.

    Raises:
        UserError: another kind.
    """
    if isinstance(dataset, BaseSegDataset):
        return [dataset]
    if isinstance(dataset, RepeatDataset):
        wrapped = [dataset.dataset] * (dataset.times if repeated else 1)
    elif isinstance(dataset, ConcatDataset):
        wrapped = dataset.datasets
    else:
        raise UserError(
            f"{type(dataset).__name__} is no dataset that can be evaluated: use a BaseSegDataset, or ConcatDataset or "
            "RepeatDataset of some"
        )
    members: list[BaseSegDataset] = []
    for inner_dataset in wrapped:
        members += plain_datasets(inner_dataset, repeated)
    return members


def source_of(dataset: BaseSegDataset) -> str:
    """The list file that names the images, or their folder."""
    return dataset.ann_file or dataset.data_prefix["img_path"]


def entries(dataset: Any) -> Iterator[tuple[BaseSegDataset, dict[str, Any]]]:
    """The plain dataset and the information of each image, in order; to be read only."""
    for plain_dataset in plain_datasets(dataset, repeated=True):
        count = len(plain_dataset)  # a lazy dataset is read now
        # get_data_info copies deeply, all of a label_map with each image.
        infos = plain_dataset.data_list or map(plain_dataset.get_data_info, range(count))
        for info in infos:
            yield plain_dataset, info

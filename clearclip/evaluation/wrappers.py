"""Datasets that hold others: ConcatDataset and RepeatDataset, and what is in them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableMapping
from typing import Any

from mmengine.dataset import ConcatDataset, RepeatDataset
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path


def plain_settings(settings: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """The settings of the datasets that ConcatDataset and RepeatDataset hold, or these; to be read or changed."""
    inner = settings.get("datasets") or [settings["dataset"]] if {"datasets", "dataset"} & {*settings} else None
    return [settings] if inner is None else [one for part in inner for one in plain_settings(part)]


def expand_paths(settings: MutableMapping[str, Any]) -> None:
    """Write out ``~`` in a plain dataset's paths."""
    for part, names in ((settings, ("data_root", "ann_file")), (settings.get("data_prefix") or {}, None)):
        for name in names or list(part):
            if str(part.get(name)).startswith("~"):
                part[name] = str(user_path(part[name]))


def build_dataset(settings: MutableMapping[str, Any]) -> Any:
    """A dataset to be tested, plain or wrapped, from a config.

    Raises:
        UserError: a list file that is no UTF-8. What MMSegmentation raises on wrong settings is passed on.
    """
    settings = copy.deepcopy(settings)
    for plain in plain_settings(settings):
        # MMEngine cannot serialise an empty list.
        plain.update(test_mode=True, serialize_data=False)
        expand_paths(plain)
    try:
        return DATASETS.build(settings)
    except UnicodeDecodeError as error:
        files = ", ".join(str(plain.get("ann_file")) for plain in plain_settings(settings))
        raise UserError(f"list file {files} is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def plain_datasets(dataset: Any) -> list[BaseSegDataset]:
    """The datasets that ConcatDataset and RepeatDataset hold, or this one.

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
    parts = dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset.dataset]
    return [one for part in parts for one in plain_datasets(part)]


def source_of(dataset: BaseSegDataset) -> str:
    """The list file that names the images, or their folder."""
    return dataset.ann_file or dataset.data_prefix["img_path"]


def entries(dataset: Any) -> Iterator[tuple[BaseSegDataset, dict[str, Any]]]:
    """The plain dataset and the information of each image, in order; to be read only."""
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from entries(part)
    elif isinstance(dataset, RepeatDataset):
        for _ in range(dataset.times):
            yield from entries(dataset.dataset)
    else:
        count = len(dataset)  # a lazy dataset is read now
        # get_data_info copies deeply, all of a label_map with each image.
        for info in dataset.data_list or map(dataset.get_data_info, range(count)):
            yield dataset, info

"""A dataset whose faults come out as facts about an image, not as a crash in a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from PIL import Image
from torch.utils.data import Dataset

from clearclip.errors import UserError

# How a whole file ends. Decoders fill what is missing with grey and go on.
_ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}


@DATASETS.register_module()
class CheckedDataset(Dataset):
    """Wraps a test dataset; checks every sample.

    Args:
        dataset: an MMSegmentation dataset, or its config.
        limit: evaluate the first so many images only.
        finished: image paths to leave out (an earlier run has them).

    Each item has ``inputs``, (3, H, W) uint8, and ``data_samples``, whose metainfo has the image's ``img_path``, and
    ``failure``: None, or what is wrong with the image (``inputs`` is None then). The ground truth has as few bytes as
    its labels need.
    """

    def __init__(self, dataset: Any, limit: int | None = None, finished: frozenset[str] = frozenset()):
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        total = len(self.dataset)
        if total == 0:
            raise UserError(f"the dataset in {self.dataset.data_root} has no image; check its list file and folders")
        wanted = range(total if limit is None else min(limit, total))
        paths = [self.dataset.get_data_info(index)["img_path"] for index in wanted]
        self.todo = [index for index, path in zip(wanted, paths, strict=True) if path not in finished]
        self.total = len(paths)
        self.ignore_index = self.dataset.ignore_index
        self.metainfo = {**self.dataset.metainfo, "ignore_index": self.ignore_index}

    def __len__(self) -> int:
        return len(self.todo)

    def __getitem__(self, position: int) -> dict[str, Any]:
        info = self.dataset.get_data_info(self.todo[position])
        path, failure = info["img_path"], None
        try:
            check_whole(path)
            check_whole(info["seg_map_path"])
            item = self.dataset.pipeline(info)
            failure = self._fault(item["data_samples"])
        except Exception as error:  # whatever a decoder makes of a damaged file
            failure = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        if failure is not None:
            item = {"inputs": None, "data_samples": SegDataSample()}
        item["data_samples"].set_metainfo({"img_path": path, "failure": failure})
        return item

    def _fault(self, sample: Any) -> str | None:
        truth = sample.gt_sem_seg.data.squeeze(0).numpy()
        if truth.shape != tuple(sample.ori_shape):
            return f"its mask is {truth.shape[0]}x{truth.shape[1]}, the image {'x'.join(map(str, sample.ori_shape))}"
        classes = len(self.metainfo["classes"])
        if self.dataset.reduce_zero_label and self.ignore_index != 255:  # MMSegmentation turns label 0 into 255
            truth[truth == 255] = self.ignore_index
        foreign = [int(label) for label in np.unique(truth) if label >= classes and label != self.ignore_index]
        if foreign:
            return f"its mask has label ids beyond the {classes} classes: {foreign[:5]}"
        small = torch.uint8 if max(classes - 1, self.ignore_index) < 256 else torch.int16
        sample.gt_sem_seg.data = sample.gt_sem_seg.data.to(small)
        return None


def check_whole(path: str) -> None:
    """Raise where an image file is cut short.

    Raises:
        OSError: it is missing, empty or truncated.
    """
    ending = _ENDINGS.get(Path(path).suffix.lower())
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1024))
        tail = file.read()
    if ending is not None and ending not in tail:
        # Unusual but whole files exist; a full decode decides.
        with Image.open(path) as image:
            image.load()

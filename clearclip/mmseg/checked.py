"""A dataset whose faults come out as facts about an image, not as a crash in a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmseg.registry import DATASETS
from PIL import Image
from torch.utils.data import Dataset

from clearclip.errors import UserError
from clearclip.evaluation.metric import IGNORE

# How a whole file ends. Decoders fill what is missing with grey and go on.
_ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}


@DATASETS.register_module()
class CheckedDataset(Dataset):
    """Wraps a test dataset; checks every sample.

    Args:
        dataset: config of an MMSegmentation dataset.
        limit: evaluate the first so many images only.
        finished: image paths to leave out (an earlier run has them).

    Each item has ``inputs``, ``data_samples``, ``image`` (path) and ``failure``: None, or what is wrong with it.
    """

    def __init__(self, dataset: dict, limit: int | None = None, finished: frozenset[str] = frozenset()):
        self.dataset = DATASETS.build(dataset)
        total = len(self.dataset)
        if total == 0:
            raise UserError(f"the dataset in {self.dataset.data_root} has no image; check its list file and folders")
        wanted = range(total if limit is None else min(limit, total))
        paths = [self.dataset.get_data_info(index)["img_path"] for index in wanted]
        self.todo = [index for index, path in zip(wanted, paths, strict=True) if path not in finished]
        self.total = len(paths)
        self.metainfo = self.dataset.metainfo

    def __len__(self) -> int:
        return len(self.todo)

    def __getitem__(self, position: int) -> dict[str, Any]:
        info = self.dataset.get_data_info(self.todo[position])
        item = {"inputs": None, "data_samples": None, "image": info["img_path"], "failure": None}
        try:
            check_whole(info["img_path"])
            check_whole(info["seg_map_path"])
            item.update(self.dataset.pipeline(info))
            item["failure"] = self._fault(item["data_samples"])
        except Exception as error:  # whatever a decoder makes of a damaged file
            item["failure"] = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        return item

    def _fault(self, sample: Any) -> str | None:
        truth = sample.gt_sem_seg.data.squeeze(0).numpy()
        if truth.shape != tuple(sample.ori_shape):
            return f"its mask is {truth.shape[0]}x{truth.shape[1]}, the image {'x'.join(map(str, sample.ori_shape))}"
        classes = len(self.metainfo["classes"])
        present = np.flatnonzero(np.bincount(truth.ravel(), minlength=IGNORE + 1))
        foreign = [int(label) for label in present if label >= classes and label != IGNORE]
        if foreign:
            return f"its mask has label ids beyond the {classes} classes: {foreign[:5]}"
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

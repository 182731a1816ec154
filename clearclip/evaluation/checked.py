"""A dataset whose faults come out as facts about an image, not as a crash in a worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from torch.utils.data import Dataset

from clearclip.evaluation.labels import label_table
from clearclip.utils.errors import UserError
from clearclip.utils.images import open_image

# How a whole file ends. Decoders fill what is missing with grey and go on.
_ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}


class LoadLabels(LoadAnnotations):
    """MMSegmentation's ``LoadAnnotations`` for masks of up to 16 bits; that class keeps the low byte of each id.

    Args:
        loader: the pipeline's own, from which the decoder is taken.
        table: (65536,) the label of each id.
    """

    def __init__(self, loader: LoadAnnotations, table: np.ndarray):
        super().__init__(backend_args=loader.backend_args, imdecode_backend=loader.imdecode_backend)
        self.table = table

    def _load_seg_map(self, results: dict) -> None:
        data = fileio.get(results["seg_map_path"], backend_args=self.backend_args)
        ids = mmcv.imfrombytes(data, flag="unchanged", backend=self.imdecode_backend)
        if ids.ndim != 2:
            raise ValueError(f"its mask has {ids.shape[-1]} channels, not one")
        results["gt_seg_map"] = self.table[ids.astype(np.uint32)]
        results["seg_fields"].append("gt_seg_map")


@DATASETS.register_module()
class CheckedDataset(Dataset):
    """Wraps a test dataset; checks every sample.

    Masks are read as the dataset's ``ignore_index``, ``reduce_zero_label`` and classes say (:class:`LoadLabels`).

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
        # Configs name LoadAnnotations, since MMSegmentation's inference looks for that name to leave it out.
        steps, table = self.dataset.pipeline.transforms, label_table(self.dataset)
        steps[:] = [LoadLabels(step, table) if type(step) is LoadAnnotations else step for step in steps]

    def __len__(self) -> int:
        return len(self.todo)

    def image_name(self, path: str) -> str:
        """An image's name in one word: its folders below the dataset's and its own, without suffix."""
        return "-".join(Path(os.path.relpath(path, self.dataset.data_prefix["img_path"])).with_suffix("").parts)

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
        foreign = np.unique(truth[(truth >= classes) & (truth != self.ignore_index)])
        if len(foreign):
            return f"its mask has label ids beyond the {classes} classes: {foreign[:5].tolist()}"
        small = torch.uint8 if 0 <= self.ignore_index < 256 and classes <= 256 else torch.int32
        sample.gt_sem_seg.data = sample.gt_sem_seg.data.to(small)
        return None


def check_whole(path: str) -> None:
    """Raise where an image file is cut short.

    Raises:
        OSError, UserError: it is missing, empty or truncated.
    """
    ending = _ENDINGS.get(Path(path).suffix.lower())
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1024))
        tail = file.read()
    if ending is not None and ending not in tail:
        # Unusual but whole files exist; a full decode decides.
        with open_image(path) as image:
            image.load()

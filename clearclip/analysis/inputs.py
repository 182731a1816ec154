"""What an analysis looks at: the images of a benchmark with their ground truth, or any images."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DefaultScope
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from clearclip.data.check import quick_check
from clearclip.errors import UserError
from clearclip.evaluation.checked import CheckedDataset
from clearclip.images import read_image
from clearclip.model import ClearCLIP


class Inputs:
    """Images, and which of them cannot be used: each is named once, skipped and counted.

    Args:
        paths: image files.
        dataset: the benchmark that they belong to, None for images without ground truth.
        workers: processes that read the benchmark.
    """

    def __init__(self, paths: Sequence[str | Path], dataset: CheckedDataset | None = None, workers: int = 0):
        self.paths = [str(path) for path in paths]
        self.dataset = dataset
        self.workers = workers
        self.failures: dict[str, str] = {}

    @classmethod
    def of_benchmark(cls, cfg: Any, limit: int | None) -> Inputs:
        """The benchmark of a config, or its first ``limit`` images.

        Raises:
            UserError: the dataset is not there or does not fit its config.
        """
        quick_check(cfg)
        # The steps of a pipeline are looked up in MMSegmentation's registry, as its runner would.
        with DefaultScope.overwrite_default_scope("mmseg"):
            dataset = CheckedDataset({**cfg.test_dataloader.dataset, "test_mode": True}, limit)
        paths = [dataset.dataset.get_data_info(index)["img_path"] for index in dataset.todo]
        return cls(paths, dataset, cfg.test_dataloader.get("num_workers", 0))

    @property
    def usable(self) -> list[str]:
        """Images that no step has found fault with."""
        return [path for path in self.paths if path not in self.failures]

    def fail(self, path: str, reason: str) -> None:
        """Name an image that cannot be used.

        Raises:
            UserError: it was the last one.
        """
        if path not in self.failures:
            self.failures[path] = reason
            tqdm.write(f"skipped: {reason}", file=sys.stderr)
        if not self.usable:
            raise UserError(f"none of the {len(self.paths)} images can be used; see the reasons above")

    def squares(self, model: ClearCLIP, side: int, batch: int, title: str) -> Iterator[Tensor]:
        """All images as a tower was trained to see them: (B, 3, side, side), normalised, on the model's device."""
        paths = self.usable
        with tqdm(total=len(paths), desc=f"statistics of {title}", unit="image", dynamic_ncols=True) as bar:
            for start in range(0, len(paths), batch):
                held = []
                for path in paths[start : start + batch]:
                    try:
                        held.append(model.normalize(centre_square(read_image(path), side)))
                    except UserError as error:
                        self.fail(path, str(error))
                if held:
                    yield torch.stack(held)
                bar.update(len(paths[start : start + batch]))

    def samples(self, title: str) -> Iterator[tuple[Tensor, np.ndarray]]:
        """The benchmark's images at the size its config wants, (3, h, w) uint8 RGB, with their masks, (H, W)."""
        loader = DataLoader(self.dataset, batch_size=None, num_workers=self.workers)
        for item in tqdm(loader, desc=f"mIoU of {title}", unit="image", dynamic_ncols=True):
            if item["failure"] is not None:
                self.fail(item["image"], f"image {item['image']}: {item['failure']}")
                continue
            # MMSegmentation reads BGR.
            yield item["inputs"].flip(0), item["data_samples"].gt_sem_seg.data.squeeze(0).numpy()

    def truth(self, path: str) -> np.ndarray | None:
        """The mask of an image, (H, W), or None."""
        if self.dataset is None:
            return None
        sample = self.dataset[self.paths.index(path)]["data_samples"]
        return sample.gt_sem_seg.data.squeeze(0).numpy()


def centre_square(image: np.ndarray, side: int) -> np.ndarray:
    """CLIP's own preprocessing: the short side of (H, W, 3) resized bicubically to ``side``, the centre cut out."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    resized = np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
    return resized[top : top + side, left : left + side]

"""What is shown while an evaluation runs: a progress bar, and pictures of some images."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from tqdm import tqdm

from clearclip.evaluation.evaluation_picture import evaluation_picture
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder
from clearclip.visualize import save_image


class ProgressHook(Hook):
    """A progress bar over all images, those of earlier sessions included; on rank 0."""

    bar: tqdm | None = None

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def before_test(self, runner: Any) -> None:
        dataset = runner.test_loop.dataloader.dataset
        self.bar = tqdm(
            total=dataset.total,
            initial=dataset.total - len(dataset),
            desc="evaluating",
            unit="image",
            disable=dist.get_rank() != 0,
            dynamic_ncols=True,
        )

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        # Other processes have counted as many by now; the last batches may be smaller.
        batch_images = len(data_batch["inputs"]) * dist.get_world_size()
        self.bar.update(min(batch_images, self.bar.total - self.bar.n))
        for sample in outputs:
            if sample.get("remarks"):
                self.remarks.append(sample.remarks[0])

    def after_test(self, runner: Any) -> None:
        if self.remarks:
            warnings.warn(f"{len(self.remarks):,} image(s): {self.remarks[0]}", stacklevel=2)

    def close(self) -> None:
        """Leave the bar's line, so that what is said next has one of its own."""
        if self.bar is not None:
            self.bar.close()


class PictureHook(Hook):
    """Writes a picture of some images: image, ground truth, prediction and errors.

    Args:
        folder: where they go; with several methods, a folder for each in it.
        step: of every so many-th image.
        most: at most so many (per process).

    Raises:
        UserError: a number below 1, or a file in the folder's place.
    """

    def __init__(self, folder: Path, step: int = 1, most: int | None = None):
        if step < 1 or (most is not None and most < 1):
            raise UserError("--show-every and --show-first must be at least 1")
        check_folder("--show-dir", folder)
        self.folder = folder
        self.step = step
        self.most = most
        self.evaluated = 0
        self.written = 0

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        for sample in outputs:
            # An image that could not be read has no prediction to be shown.
            if sample.get("failure") is not None:
                continue
            is_due = self.evaluated % self.step == 0
            self.evaluated += 1
            if is_due and (self.most is None or self.written < self.most):
                self._write_pictures(runner, sample)
                self.written += 1

    def _write_pictures(self, runner: Any, sample: Any) -> None:
        """Write a picture of an image for each method."""
        dataset = runner.test_loop.dataloader.dataset
        segmentor = runner.model.module
        file_stem = dataset.file_stems[sample.index]
        file_name = f"{file_stem}.png"
        # Processes may hold images of one name, so each has its number in its files' names.
        if dist.get_world_size() > 1:
            file_name = f"{file_stem}-{dist.get_rank()}.png"
        image = dataset.image(sample.index)
        ground_truth = sample.gt_sem_seg.data.squeeze(0).cpu().numpy()
        for method, labels in zip(segmentor.methods, sample.pred_methods.data, strict=True):
            picture = evaluation_picture(
                image,
                ground_truth,
                labels.cpu().numpy(),
                list(dataset.metainfo["classes"]),
                dataset.metainfo["palette"],
                dataset.metainfo["ignore_index"],
                f"{segmentor.model.label} · {method.label} · {file_stem}",
            )
            folder = self.folder
            if len(segmentor.methods) > 1:
                folder = self.folder / method.label.replace(" ", "")
            save_image(picture, folder / file_name)

"""What is shown while an evaluation runs: a progress bar, and pictures of some images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine import dist
from mmengine.hooks import Hook
from PIL import Image
from tqdm import tqdm

from clearclip.evaluation.metric import confusion_counts
from clearclip.evaluation.scores import Scores
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder
from clearclip.visualize import IGNORED, Palette, class_palette, colour_map, fit, save_image, sheet, short

#: Errors are painted with the one of these that is least like any class's colour.
WRONG = np.array([(230, 0, 0), (230, 0, 200), (0, 230, 230), (0, 0, 0)])


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
        seen = len(data_batch["inputs"]) * dist.get_world_size()
        self.bar.update(min(seen, self.bar.total - self.bar.n))
        self.remarks += [sample.remarks[0] for sample in outputs if sample.get("remarks")]

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
        every: of every so many-th image.
        first: at most so many (per process).

    Raises:
        UserError: a number below 1, or a file in the folder's place.
    """

    def __init__(self, folder: Path, every: int = 1, first: int | None = None):
        if every < 1 or (first is not None and first < 1):
            raise UserError("--show-every and --show-first must be at least 1")
        check_folder("--show-dir", folder)
        self.folder = folder
        self.every = every
        self.first = first
        self.seen = 0
        self.written = 0

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        dataset = runner.test_loop.dataloader.dataset
        meta = dataset.metainfo
        methods = runner.model.module.methods
        for sample in outputs:
            if sample.get("failure") is not None:
                continue
            wanted = self.seen % self.every == 0 and (self.first is None or self.written < self.first)
            self.seen += 1
            if not wanted:
                continue
            rank = f"-{dist.get_rank()}" if dist.get_world_size() > 1 else ""
            name = dataset.file_stems[sample.index]
            image = dataset.image(sample.index)
            for method, labels in zip(methods, sample.pred_methods.data, strict=True):
                picture = evaluation_picture(
                    image,
                    sample.gt_sem_seg.data.squeeze(0).cpu().numpy(),
                    labels.cpu().numpy(),
                    list(meta["classes"]),
                    meta["palette"],
                    meta["ignore_index"],
                    f"{runner.model.module.model.label} · {method.label} · {name}",
                )
                folder = self.folder / method.label.replace(" ", "") if len(methods) > 1 else self.folder
                save_image(picture, folder / f"{name}{rank}.png")
            self.written += 1


def evaluation_picture(
    image: np.ndarray,
    ground_truth: np.ndarray,
    prediction: np.ndarray,
    class_names: Sequence[str],
    palette: Palette | None = None,
    ignore_index: int = 255,
    title: str = "",
) -> Image.Image:
    """Image, ground truth, prediction and errors, with a legend of the classes that occur and their IoU.

    Args:
        image: (H, W, 3) uint8 RGB.
        ground_truth: (H, W) integers; ``ignore_index`` marks pixels that do not count.
        prediction: (H, W) integers.
        class_names: in label order.
        palette: a colour for each class; default: this package's own.
        ignore_index: as in the dataset.
        title: above all.

    Raises:
        UserError: the three are not of one size.
    """
    if not image.shape[:2] == ground_truth.shape == prediction.shape:
        shapes = f"{image.shape[:2]}, {ground_truth.shape} and {prediction.shape}"
        raise UserError(f"image, ground truth and prediction must have one height and width, not {shapes}")
    colours, count = class_palette(class_names, palette), len(class_names)
    truth, guess = (torch.from_numpy(labels.astype(np.int64)) for labels in (ground_truth, prediction))
    scores = Scores(confusion_counts(truth, guess, count, ignore_index).view(count, count).numpy())
    columns, side = (2, 960) if image.shape[1] > image.shape[0] else (4, 600)
    photo, truth, guess = (fit(array, side) for array in (image, truth.numpy(), guess.numpy()))
    ignored = truth == ignore_index
    errors = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2) // 3 + 160
    wrong = WRONG[np.linalg.norm(WRONG[:, None] - colours[None].astype(int), axis=-1).min(axis=1).argmax()]
    errors[truth != guess] = wrong
    errors[ignored] = IGNORED
    panels = [
        ("image", photo),
        ("ground truth", colour_map(np.where(ignored, -1, truth), colours)),
        ("prediction", colour_map(guess, colours)),
        (f"errors · {100 - scores.summary['aAcc']:.1f}% of the pixels", errors),
    ]
    order = np.argsort(-scores.confusion.sum(axis=1), kind="stable")
    legend = [(f"{short(class_names[k])} · {scores.iou[k]:.1f}", colours[k]) for k in order if scores.iou[k] >= 0]
    legend += [("error", wrong), ("ignored", IGNORED)][: 1 + bool(ignored.any())]
    return sheet(panels, columns, legend, "after each class its IoU in this image, in percent", title=title)

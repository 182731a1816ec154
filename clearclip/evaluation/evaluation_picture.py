"""A picture of one evaluated image: image, ground truth, prediction and errors."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image

from clearclip.evaluation.confusion import confusion_counts
from clearclip.evaluation.scores import Scores
from clearclip.utils.errors import UserError
from clearclip.visualize import IGNORED, Palette, class_palette, colour_map, fit, sheet, short

#: Errors are painted with the one of these that is least like any class's colour.
ERROR_COLOURS = np.array([(230, 0, 0), (230, 0, 200), (0, 230, 230), (0, 0, 0)])


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
    colours = class_palette(class_names, palette)
    scores = _scores(ground_truth, prediction, len(class_names), ignore_index)
    # Four panels side by side, or two by two where the image is wide.
    columns, side = (2, 960) if image.shape[1] > image.shape[0] else (4, 600)
    photo = fit(image, side)
    truth = fit(ground_truth.astype(np.int64), side)
    guess = fit(prediction.astype(np.int64), side)
    is_ignored = truth == ignore_index
    error_colour = _error_colour(colours)
    panels = [
        ("image", photo),
        ("ground truth", colour_map(np.where(is_ignored, -1, truth), colours)),
        ("prediction", colour_map(guess, colours)),
        (
            f"errors · {100 - scores.summary['aAcc']:.1f}% of the pixels",
            _error_map(photo, truth != guess, is_ignored, error_colour),
        ),
    ]
    legend = []
    # The classes with the most pixels come first.
    for label in np.argsort(-scores.confusion.sum(axis=1), kind="stable"):
        if scores.iou[label] >= 0:
            legend.append((f"{short(class_names[label])} · {scores.iou[label]:.1f}", colours[label]))
    legend.append(("error", error_colour))
    if is_ignored.any():
        legend.append(("ignored", IGNORED))
    return sheet(panels, columns, legend, "after each class its IoU in this image, in percent", title=title)


def _scores(ground_truth: np.ndarray, prediction: np.ndarray, classes: int, ignore_index: int) -> Scores:
    truth = torch.from_numpy(ground_truth.astype(np.int64))
    guess = torch.from_numpy(prediction.astype(np.int64))
    counts = confusion_counts(truth, guess, classes, ignore_index)
    return Scores(counts.view(classes, classes).numpy())


def _error_colour(colours: np.ndarray) -> np.ndarray:
    differences = np.linalg.norm(ERROR_COLOURS[:, None] - colours[None].astype(int), axis=-1)
    return ERROR_COLOURS[differences.min(axis=1).argmax()]


def _error_map(photo: np.ndarray, is_wrong: np.ndarray, is_ignored: np.ndarray, error_colour: np.ndarray) -> np.ndarray:
    """The photograph in pale grey, with errors and what is ignored painted over it."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    error_map = grey // 3 + 160
    error_map[is_wrong] = error_colour
    error_map[is_ignored] = IGNORED
    return error_map

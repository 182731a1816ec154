"""A picture of one evaluated image: what is right in it, and where the errors are."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image

from clearclip.evaluation.scores import Scores, confusion_counts
from clearclip.utils.errors import UserError
from clearclip.visualize import IGNORED, Palette, class_palette, colour_map, fit, sheet, short

#: Errors are painted with the one of these that is least like any class's colour.
WRONG = np.array([(230, 0, 0), (230, 0, 200), (0, 230, 230), (0, 0, 0)])


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

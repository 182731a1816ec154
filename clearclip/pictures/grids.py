"""Pictures for reports: rows of images and label maps under common titles, and what an evaluation got wrong."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from clearclip.errors import UserError
from clearclip.pictures.colours import Palette, class_palette
from clearclip.pictures.paint import colour_map
from clearclip.pictures.results import share_text
from clearclip.pictures.sheet import LegendEntry, Panel, compose, fit, resize_labels, resize_photo

WRONG = (213, 94, 0)


def grid_picture(
    rows: Sequence[Sequence[np.ndarray | Image.Image]],
    column_titles: Sequence[str],
    legend: Sequence[tuple[str, Sequence[int]]],
    *,
    row_titles: Sequence[str] = (),
    panel_titles: Sequence[Sequence[str]] | None = None,
    side: int | None = None,
) -> Image.Image:
    """Images and label maps in rows and columns, with one legend below.

    Args:
        rows: of pictures: (H, W, 3) uint8 arrays and PIL images are shown as they are, (H, W) integer arrays are
            label maps, painted in the legend's colours (labels beyond the legend, such as 255, are hatched).
        column_titles: above the first row.
        legend: name and RGB colour of each class, in label order.
        row_titles: above each row.
        panel_titles: above each picture, in place of the column titles.
        side: the longer side of each picture in pixels, to which it is enlarged or reduced; default: what makes
            the whole about 2000 pixels wide.
    """
    if panel_titles is None:
        panel_titles = [list(column_titles)] + [[""] * len(row) for row in rows[1:]]
    colours = np.array([colour for _, colour in legend], dtype=np.uint8).reshape(-1, 3)
    side = side or int(np.clip(2000 // max(len(row) for row in rows), 200, 640))
    panels = []
    for row, titles in zip(rows, panel_titles, strict=True):
        panels.append(
            [Panel(_shown(picture, colours, side), title) for picture, title in zip(row, titles, strict=True)]
        )
    return compose(panels, [LegendEntry(name, colour) for name, colour in legend], row_titles=row_titles)


def _shown(picture: np.ndarray | Image.Image, colours: np.ndarray, side: int) -> Image.Image:
    array = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    size = fit(array.shape[:2], side)
    if array.ndim == 2:
        return Image.fromarray(colour_map(resize_labels(array, size), colours))
    return Image.fromarray(resize_photo(array, size))


def evaluation_picture(
    image: np.ndarray,
    ground_truth: np.ndarray,
    prediction: np.ndarray,
    class_names: Sequence[str],
    palette: Palette | None = None,
    ignore_index: int = 255,
) -> Image.Image:
    """Image, ground truth, prediction and errors, with a legend of the classes that occur and their IoU.

    Args:
        image: (H, W, 3) uint8 RGB.
        ground_truth: (H, W) integers; ``ignore_index`` marks pixels that do not count.
        prediction: (H, W) integers.
        class_names: in label order.
        palette: a colour for each class; default: this package's own.
        ignore_index: as in the dataset.

    Raises:
        UserError: the three are not of one size.
    """
    if not image.shape[:2] == ground_truth.shape == prediction.shape:
        raise UserError(
            f"image {image.shape[:2]}, ground truth {ground_truth.shape} and prediction {prediction.shape} "
            "must have one height and width"
        )
    colours = class_palette(class_names, palette)
    counted = ground_truth != ignore_index
    wrong = counted & (ground_truth != prediction)
    height, width = ground_truth.shape
    columns = 2 if width > height else 4
    size = fit((height, width), 960 if columns == 2 else 480)
    photo = resize_photo(image, size)

    def shown(labels: np.ndarray) -> Image.Image:
        # Whatever the ignored label is, it must lie beyond the colours to be hatched.
        labels = np.where(labels == ignore_index, len(colours), labels.astype(np.int64))
        return Image.fromarray(colour_map(resize_labels(labels, size), colours))

    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=-1)
    errors = (160 + grey * (95 / 255)).astype(np.uint8)
    errors[resize_labels(wrong, size)] = WRONG
    hatched = colour_map(np.ones(size, np.uint8), colours[:0])
    ignored = resize_labels(~counted, size)
    errors[ignored] = hatched[ignored]
    share = wrong.sum() / max(1, counted.sum())
    panels = [
        Panel(Image.fromarray(photo), "image"),
        Panel(shown(ground_truth), "ground truth"),
        Panel(shown(prediction), "prediction"),
        Panel(Image.fromarray(errors), f"errors · {share_text(share)} of the pixels"),
    ]
    legend = _scores(ground_truth, prediction, counted, class_names, colours)
    legend.append(LegendEntry("error", WRONG))
    footnote = "Behind each class is its IoU in this image." + ("" if counted.all() else " Hatched pixels are ignored.")
    rows = [panels[start : start + columns] for start in range(0, 4, columns)]
    return compose(rows, legend, footnote=footnote)


def _scores(
    ground_truth: np.ndarray, prediction: np.ndarray, counted: np.ndarray, names: Sequence[str], colours: np.ndarray
) -> list[LegendEntry]:
    """The classes that occur in the counted pixels, those with the most pixels first, with their IoU."""
    truth = ground_truth[counted].astype(np.int64)
    guess = prediction[counted].astype(np.int64)
    in_truth = np.bincount(truth, minlength=len(names))[: len(names)]
    in_guess = np.bincount(guess, minlength=len(names))[: len(names)]
    both = np.bincount(truth[truth == guess], minlength=len(names))[: len(names)]
    either = in_truth + in_guess - both
    order = sorted(np.flatnonzero(either), key=lambda label: (-in_truth[label], -in_guess[label]))
    return [LegendEntry(names[k], colours[k], f"{100 * both[k] / either[k]:.1f}") for k in order]

"""A confusion matrix as a picture: a line for each true class, its pixels by predicted class."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from clearclip.visualize.fonts import font_file
from clearclip.visualize.sheets import short

#: Inches for each class: numbers fit in the larger cells, names beside the smaller ones.
LARGE_CELL, SMALL_CELL = 0.36, 0.14
#: Up to so many classes cells have numbers.
MOST_WITH_NUMBERS = 30
#: From this share on a cell is dark and its number white.
DARK = 55


def confusion_picture(confusion: np.ndarray, classes: Sequence[str], title: str = "") -> bytes:
    """Draw a confusion matrix: in each line the percent of the true class's pixels that were predicted as each class.

    Args:
        confusion: (classes, classes) counts, rows are the ground truth.
        classes: names in label order. Those that do not occur in the ground truth have an empty line.
        title: above the picture.

    Returns:
        A PNG file.
    """
    # Matplotlib takes a while to load, and most evaluations draw nothing.
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    # A class that does not occur is divided by 0; its line stays empty.
    with np.errstate(invalid="ignore"):
        percent = 100 * confusion / confusion.sum(axis=1, keepdims=True)
    has_numbers = len(classes) <= MOST_WITH_NUMBERS
    side = max(2.5, len(classes) * (LARGE_CELL if has_numbers else SMALL_CELL))
    figure = Figure(figsize=(side, side), dpi=150)
    axes = figure.add_subplot()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    _name_classes(axes, classes, font_size=7.0 if has_numbers else 5.0)
    if title:
        axes.set_title(title, fontproperties=FontProperties(fname=font_file(title), size=9))
    if has_numbers:
        _write_numbers(axes, percent)
    scale = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, pad=0.03)
    scale.set_label("% of the true class's pixels", fontsize=7)
    scale.ax.tick_params(labelsize=6)
    buffer = io.BytesIO()
    # The file grows by what names and title need.
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.1)
    return buffer.getvalue()


def _name_classes(axes: Any, classes: Sequence[str], font_size: float) -> None:
    """Write the names of the classes at both axes, each in a font that has its letters."""
    from matplotlib.font_manager import FontProperties

    names = [short(name) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_fontproperties(FontProperties(fname=font_file(label.get_text()), size=font_size))
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class", fontsize=8)
    axes.set_ylabel("true class", fontsize=8)


def _write_numbers(axes: Any, percent: np.ndarray) -> None:
    """Write percentages, (classes, classes), into their cells; those that round to 0 are left out."""
    for row, column in np.argwhere(percent >= 0.5):
        value = percent[row, column]
        colour = "black"
        if value > DARK:
            colour = "white"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6, color=colour)

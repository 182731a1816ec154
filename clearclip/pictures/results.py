"""Pictures of what :meth:`clearclip.ClearCLIP.segment` returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clearclip.pictures.paint import colour_map, heat_map, heat_scale, overlay, write_names
from clearclip.pictures.sheet import LegendEntry, Panel, compose, fit, resize_labels, resize_photo

if TYPE_CHECKING:
    from clearclip.segmentation import Segmentation

#: Images wider than this (width ÷ height) stand below each other.
WIDE = 1.7
#: Up to this many classes the legend lists those that were not found.
LISTED = 24


def share_text(share: float) -> str:
    """0.1234 as "12.3 %"; what is not zero never reads as zero."""
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.1f} %"


def result_picture(result: Segmentation) -> Image.Image:
    """Photo, overlay and map, with a legend that names each colour and its share of the image."""
    height, width = result.labels.shape
    wide = width > WIDE * height
    size = fit((height, width), 1200 if wide else 640)
    photo, labels = resize_photo(result.image, size), resize_labels(result.labels, size)
    panels = [
        Panel(Image.fromarray(photo), f"image · {width} × {height}"),
        Panel(overlay(photo, labels, len(result.classes), colours=result.colours), "overlay"),
        Panel(_named_map(result, labels), "classes"),
    ]
    legend, footnote = _shares(result)
    return compose([[panel] for panel in panels] if wide else [panels], legend, footnote=footnote)


def compare_picture(results: Mapping[str, Segmentation]) -> Image.Image:
    """The maps that several methods give of one image, side by side.

    Args:
        results: by the method's name; all of the same image and classes.
    """
    first = next(iter(results.values()))
    size = fit(first.labels.shape, 640)
    maps = {name: resize_labels(result.labels, size) for name, result in results.items()}
    panels = [Panel(Image.fromarray(resize_photo(first.image, size)), "image")]
    panels += [Panel(Image.fromarray(colour_map(labels, first.colours)), name) for name, labels in maps.items()]
    found = sorted(set().union(*(np.flatnonzero(result.class_pixels).tolist() for result in results.values())))
    legend = [LegendEntry(first.classes[label], first.colours[label]) for label in found]
    missing = len(first.classes) - len(found)
    footnote = f"{missing} of {len(first.classes)} classes are on none of the maps." if missing else ""
    return compose(_rows(panels, 3 if len(panels) != 4 else 2), legend, footnote=footnote)


def heat_picture(result: Segmentation) -> Image.Image:
    """A map for each word of its cosine similarity with every place of the image, all on one scale."""
    words = [(word, words[0]) for words in result.words for word in words]
    columns = max(2, min(8, math.ceil(math.sqrt(len(words) + 1))))
    size = fit(result.labels.shape, max(240, min(640, 2000 // columns)))
    photo = resize_photo(result.image, size)
    low, high = result.similarity_range
    panels = [Panel(Image.fromarray(photo), "image")]
    for index, (word, name) in enumerate(words):
        values = result.similarity_map(index, size)
        title = f"{word} · {values.max():.2f}" if word == name else f"{word} ({name}) · {values.max():.2f}"
        panels.append(Panel(heat_map(photo, values, low, high), title))
    panels.append(Panel(heat_scale(size[1], max(12, size[0] // 12)), f"{low:.2f} … {high:.2f}".replace("-", "−")))
    footnote = "Cosine similarity with each word, on one scale; the number after a word is its maximum."
    return compose(_rows(panels, columns), footnote=footnote)


def _named_map(result: Segmentation, labels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(colour_map(labels, result.colours))
    write_names(picture, labels, result.classes, result.colours, max(14, max(labels.shape) // 36))
    return picture


def _shares(result: Segmentation) -> tuple[list[LegendEntry], str]:
    """The legend, largest share first, and a line on what is not listed."""
    shares = result.class_pixels / result.labels.size
    order = np.argsort(-shares, kind="stable")
    listed = [label for label in order if shares[label] or len(order) <= LISTED]
    legend = [LegendEntry(result.classes[k], result.colours[k], share_text(shares[k])) for k in listed]
    missing = len(order) - len(listed)
    return legend, f"{missing} of {len(order)} classes were not found." if missing else ""


def _rows(panels: list[Panel], columns: int) -> list[list[Panel]]:
    return [panels[start : start + columns] for start in range(0, len(panels), columns)]

"""Pictures of what :meth:`clearclip.ClearCLIP.segment` returns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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


def shown(result: Segmentation, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels of a result, their longer side about ``side`` pixels: (h, w, 3) uint8 and (h, w)."""
    size = fit(result.labels.shape, side)
    return resize_photo(result.image, size), resize_labels(result.labels, size)


def overlay_picture(result: Segmentation, side: int) -> Image.Image:
    """The overlay of a result, its longer side about ``side`` pixels."""
    return overlay(*shown(result, side), len(result.classes), colours=result.colours)


def result_picture(result: Segmentation) -> Image.Image:
    """Photo, overlay and map, with a legend that names each colour and its share of the image."""
    height, width = result.labels.shape
    wide = width > WIDE * height
    photo, labels = shown(result, 1200 if wide else 640)
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
    panels = [Panel(Image.fromarray(shown(first, 640)[0]), "image")]
    for name, result in results.items():
        panels.append(Panel(Image.fromarray(colour_map(shown(result, 640)[1], first.colours)), name))
    found = sorted(set().union(*(np.flatnonzero(result.class_pixels).tolist() for result in results.values())))
    legend = [LegendEntry(first.classes[label], first.colours[label]) for label in found]
    missing = len(first.classes) - len(found)
    footnote = f"{missing} of {len(first.classes)} classes are on none of the maps." if missing else ""
    return compose(_rows(panels, 3 if len(panels) != 4 else 2), legend, footnote=footnote)


def heat_maps(result: Segmentation, side: int) -> Iterator[tuple[str, Image.Image]]:
    """For each word its name with its largest cosine similarity, and its map, all on the scale of the result."""
    photo, _ = shown(result, side)
    low, high = result.similarity_range
    words = [(word, of_class[0]) for of_class in result.words for word in of_class]
    for index, (word, name) in enumerate(words):
        values = result.similarity_map(index, photo.shape[:2])
        title = word if word == name else f"{word} ({name})"
        yield f"{title} · {_number(values.max())}", heat_map(photo, values, low, high)


def heat_picture(result: Segmentation) -> Image.Image:
    """A map for each word of its cosine similarity with every place of the image, all on one scale."""
    count = sum(len(words) for words in result.words) + 1
    columns = max(2, min(8, math.ceil(math.sqrt(count))))
    side = int(np.clip(2000 // columns, 240, 640))
    photo, _ = shown(result, side)
    panels = [Panel(Image.fromarray(photo), "image")]
    panels += [Panel(picture, title) for title, picture in heat_maps(result, side)]
    scale = heat_scale(photo.shape[1], max(12, photo.shape[0] // 12))
    panels.append(Panel(scale, " … ".join(_number(end) for end in result.similarity_range)))
    footnote = "Cosine similarity with each word, all on one scale; the number after a word is its maximum."
    return compose(_rows(panels, columns), footnote=footnote)


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


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

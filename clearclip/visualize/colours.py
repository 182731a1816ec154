"""Colours of classes; labels and similarities as colours, alone or over a photograph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from PIL import Image

from clearclip.utils.errors import UserError

Palette: TypeAlias = np.ndarray | Sequence[Sequence[int]]

#: Sasha Trubetskoy's 20 simple, distinct colours, sorted so that the first ones differ for colour-blind eyes, too.
DISTINCT = np.frombuffer(bytes.fromhex(
    "4363d8 ffe119 e6194b 42d4f4 3cb44b ffd8b1 000075 808000 800000 fabed4"
    "9a6324 469990 911eb4 bfef45 f58231 fffac8 dcbeff f032e6 aaffc3 a9a9a9"
), np.uint8).reshape(-1, 3)  # fmt: skip
#: Colours that are chosen one by one.
SEARCHED_COLOURS = 1000
#: What a class named "background" is painted with.
BACKGROUND_COLOUR = (90, 90, 90)
#: What pixels without a class are painted with: the colour of PASCAL VOC's void pixels.
IGNORED = (224, 224, 192)


def class_palette(names: Sequence[str], dataset_colours: Palette | None = None) -> np.ndarray:
    """Colours for classes: the same ones in every picture, whatever the method, since they depend on the classes only.

    Args:
        names: of the classes; a first one named "background" is grey and costs no colour.
        dataset_colours: a dataset's own, at least as many, RGB in 0..255. Where two of its classes have the same one
            (COCO, ADE20K and PASCAL Context have such), all classes get colours of this package instead.

    Returns:
        (len(names), 3) uint8 RGB

    Raises:
        UserError: ``dataset_colours`` has too few colours or is no list of RGB triples.
    """
    if dataset_colours is not None:
        colours = _checked_palette(dataset_colours, len(names))
        if len(np.unique(colours, axis=0)) == len(names):
            return colours
    has_background = bool(names) and names[0].lower() == "background"
    if has_background:
        return np.vstack([[BACKGROUND_COLOUR], distinct_colours(len(names) - 1)]).astype(np.uint8)
    # A copy, since the colours are kept for the next call.
    return distinct_colours(len(names)).copy()


def _checked_palette(palette: Palette, count: int) -> np.ndarray:
    """The first ``count`` colours of a palette, (count, 3) uint8; a UserError where there are no such."""
    colours = np.asarray(palette)
    is_list_of_triples = colours.ndim == 2 and colours.shape[1] == 3
    if not is_list_of_triples or colours.min(initial=0) < 0 or colours.max(initial=0) > 255:
        raise UserError("a palette must be a list of (red, green, blue), each from 0 to 255")
    if len(colours) < count:
        raise UserError(f"the palette has {len(colours)} colours for {count} classes; give one for each")
    return colours[:count].astype(np.uint8)


@lru_cache(maxsize=32)
def distinct_colours(count: int) -> np.ndarray:
    """Colours that look different from each other, from the background's and from that of ignored pixels.

    The first 20 are :data:`DISTINCT`; each further one is, of a grid of colours, the one that is farthest from all
    before it in CIELAB, in which distances are those that eyes see. More colours begin with the same ones.

    Returns:
        (count, 3) uint8 RGB, read-only.
    """
    colours = DISTINCT[:count]
    if count > len(DISTINCT):
        # 20 steps of each channel are 8,000 colours.
        levels = np.linspace(0, 255, 20).round().astype(np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
        grid_lab = _to_lab(grid)
        # Of each colour of the grid: the squared distance to the nearest one that is taken.
        distances = np.full(len(grid), np.inf)
        for colour in _to_lab(np.vstack([DISTINCT, [BACKGROUND_COLOUR], [IGNORED]])):
            distances = np.minimum(distances, np.square(grid_lab - colour).sum(axis=1))
        further_colours = []
        for _ in range(min(count, SEARCHED_COLOURS) - len(DISTINCT)):
            farthest = int(distances.argmax())
            further_colours.append(grid[farthest])
            distances = np.minimum(distances, np.square(grid_lab - grid_lab[farthest]).sum(axis=1))
        # So many classes cannot be told apart by colour anyway; the others are taken as they come.
        further_colours += list(np.resize(grid, (max(0, count - SEARCHED_COLOURS), 3)))
        colours = np.vstack([DISTINCT, *further_colours]).astype(np.uint8)
    # Read-only, since all callers get this very array.
    colours.flags.writeable = False
    return colours


def _to_lab(colours: np.ndarray) -> np.ndarray:
    """CIELAB of RGB colours in 0..255, (K, 3) float32."""
    return cv2.cvtColor(colours.astype(np.float32)[None] / 255, cv2.COLOR_RGB2LAB)[0]


def fit(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture, (H, W, 3) uint8, or labels, (H, W) integers, with a longer side of at most ``side`` pixels.

    Smaller ones are enlarged by a whole factor, so that pixels stay sharp and even.
    """
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
    fitted_height = max(1, round(scale * height))
    fitted_width = max(1, round(scale * width))
    if picture.ndim == 3:
        return np.asarray(Image.fromarray(picture).resize((fitted_width, fitted_height), Image.Resampling.LANCZOS))
    # Labels cannot be mixed: each pixel takes the label at its centre.
    rows = ((np.arange(fitted_height) + 0.5) / scale).astype(int)
    columns = ((np.arange(fitted_width) + 0.5) / scale).astype(int)
    return picture[np.ix_(np.minimum(rows, height - 1), np.minimum(columns, width - 1))]


def colour_map(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Labels, (H, W) integers, in their ``colours``, (K, 3); those that have none as ignored: (H, W, 3) uint8."""
    table = np.vstack([colours, IGNORED]).astype(np.uint8)
    # -1 and the number of colours both are the last row, that of ignored pixels.
    return table[np.clip(labels.astype(np.int64), -1, len(colours))]


def overlay(image: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float = 0.55) -> Image.Image:
    """Paint labels over an image, with a fine dark line where two classes meet.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W), integers.
        colours: (K, 3) uint8, one for each label.
        opacity: of the paint, 0 to 1.

    Returns:
        a PIL image of the size of ``image``.
    """
    mixed = cv2.addWeighted(image, 1 - opacity, colour_map(labels, colours), opacity, 0)
    # Morphology of OpenCV knows no int64; labels are fewer than 65,536.
    edges = cv2.morphologyEx(labels.astype(np.uint16), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    mixed[edges] //= 3
    return Image.fromarray(mixed)


def heat_map(image: np.ndarray, values: np.ndarray, low: float, high: float) -> Image.Image:
    """A map of similarities over the image in grey.

    Args:
        image: (H, W, 3) uint8 RGB.
        values: (H, W) float.
        low, high: the values of the darkest and the brightest colour.

    Returns:
        a PIL image of the size of ``image``.
    """
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    heat = cv2.applyColorMap((255 * scaled).round().astype(np.uint8), cv2.COLORMAP_MAGMA)[..., ::-1]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    return Image.fromarray(cv2.addWeighted(grey, 0.3, np.ascontiguousarray(heat), 0.7, 0))

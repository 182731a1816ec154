"""Colours of classes; labels and similarities as colours, alone or over a photograph."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
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
#: What a class named "background" is painted with.
BACKGROUND = (90, 90, 90)
#: What pixels without a class are painted with: the colour of PASCAL VOC's void pixels.
IGNORED = (224, 224, 192)


def class_palette(names: Sequence[str], given: Palette | None = None) -> np.ndarray:
    """Colours for classes.

    Args:
        names: of the classes; a first one named "background" is grey and costs no colour.
        given: colours to use instead, at least as many, RGB in 0..255.

    Returns:
        (len(names), 3) uint8 RGB

    Raises:
        UserError: ``given`` has too few colours or is no list of RGB triples.
    """
    if given is None:
        first = [BACKGROUND] if names and names[0].lower() == "background" else []
        more = [_hue(k) for k in range(len(DISTINCT), len(names) - len(first))]
        return np.array([*first, *DISTINCT, *more], dtype=np.uint8)[: len(names)]
    colours = np.asarray(given)
    if colours.ndim != 2 or colours.shape[1] != 3 or colours.min(initial=0) < 0 or colours.max(initial=0) > 255:
        raise UserError("a palette must be a list of (red, green, blue), each from 0 to 255")
    if len(colours) < len(names):
        raise UserError(f"the palette has {len(colours)} colours for {len(names)} classes; give one for each")
    return colours[: len(names)].astype(np.uint8)


def _hue(k: int) -> list[int]:
    """Hues by the golden angle, each in another of nine tones than those next to it."""
    tone = colorsys.hsv_to_rgb(k * 0.618034 % 1, (0.5, 1, 0.7)[k % 3], (0.95, 0.45, 0.7)[k // 3 % 3])
    return [round(255 * value) for value in tone]


def fit(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture, (H, W, 3) uint8, or labels, (H, W) integers, with a longer side of at most ``side`` pixels.

    Smaller ones are enlarged by a whole factor, so that pixels stay sharp and even.
    """
    scale = side / max(picture.shape[:2])
    if scale >= 1:
        return picture.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
    height, width = (max(1, round(scale * size)) for size in picture.shape[:2])
    if picture.ndim == 3:
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
    places = [((np.arange(new) + 0.5) / scale).astype(int) for new in (height, width)]
    return picture[np.ix_(*(np.minimum(at, size - 1) for at, size in zip(places, picture.shape, strict=True)))]


def colour_map(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Labels, (H, W) integers, in their ``colours``, (K, 3); those that have none as ignored: (H, W, 3) uint8."""
    table = np.vstack([colours, IGNORED]).astype(np.uint8)
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

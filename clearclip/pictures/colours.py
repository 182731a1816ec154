"""Colours of classes: far apart for normal and for colour-blind eyes, as many as are needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from clearclip.errors import UserError

Palette = np.ndarray | Sequence[Sequence[int]]

#: The first seven are Okabe and Ito's; the others are the farthest from those before, under the views of
#: :func:`appearances`, with the most nameable one taken among near ties.
FIRST = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66),
    (110, 10, 10), (46, 10, 140), (150, 255, 255), (170, 0, 255), (170, 0, 119),
)  # fmt: skip

#: What a class named "background" is painted with.
BACKGROUND = (90, 90, 90)

# Severe protanopia, deuteranopia and tritanopia on linear RGB (Machado, Oliveira and Fernandes, 2009).
_DEFICIENCIES = np.array([
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
])  # fmt: skip
# Linear RGB to the cone responses of Oklab, and their cube roots to Oklab (Ottosson, 2020).
_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_OKLAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip


def appearances(colours: Palette) -> np.ndarray:
    """How colours look to normal, protanopic, deuteranopic and tritanopic eyes.

    Args:
        colours: (N, 3), RGB in 0..255.

    Returns:
        (N, 4, 3) Oklab: distances are about perceived differences, 1 is that of black and white.
    """
    values = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.concatenate([linear[None], linear @ _DEFICIENCIES.transpose(0, 2, 1)]).clip(0, 1)
    return (np.cbrt(seen @ _CONES.T) @ _OKLAB.T).transpose(1, 0, 2)


def separations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances of two sets of :func:`appearances`, (N, 4, 3) and (M, 4, 3): half normal, half worst deficiency."""
    distance = np.linalg.norm(first[:, None] - second[None], axis=-1)
    return (distance[..., 0] + distance[..., 1:].min(axis=-1)) / 2


@lru_cache(maxsize=1)
def _sequence() -> np.ndarray:
    """All colours there are, each as far as possible from those before it, (N, 3) uint8."""
    levels = range(0, 256, 17)
    candidates = np.array(list(product(levels, levels, levels)), dtype=np.uint8)
    seen = appearances(candidates)
    lightness, chroma = seen[:, 0, 0], np.hypot(seen[:, 0, 1], seen[:, 0, 2])
    # Greys are left to photographs, and what is nearly black or white to text.
    usable = (lightness > 0.3) & (lightness < 0.95) & (chroma > 0.07)
    candidates, seen = candidates[usable], seen[usable]
    nearest = separations(seen, appearances(FIRST)).min(axis=1)
    chosen = [np.array(FIRST, dtype=np.uint8)]
    for _ in range(512):
        best = int(nearest.argmax())
        chosen.append(candidates[best : best + 1])
        nearest = np.minimum(nearest, separations(seen, seen[best : best + 1])[:, 0])
    return np.concatenate(chosen)


def palette(n_classes: int, given: Palette | None = None) -> np.ndarray:
    """Colours for ``n_classes`` classes.

    Args:
        n_classes: how many; beyond some 500 colours repeat.
        given: colours to use instead, at least as many, RGB in 0..255.

    Returns:
        (n_classes, 3) uint8 RGB

    Raises:
        UserError: ``given`` has too few colours or is no list of RGB triples.
    """
    if given is not None:
        colours = np.asarray(given)
        if colours.ndim != 2 or colours.shape[1] != 3 or colours.min(initial=0) < 0 or colours.max(initial=0) > 255:
            raise UserError("a palette must be a list of (red, green, blue), each from 0 to 255")
        if len(colours) < n_classes:
            raise UserError(f"the palette has {len(colours)} colours for {n_classes} classes; give one for each")
        return colours[:n_classes].astype(np.uint8)
    if n_classes <= len(FIRST):
        return np.array(FIRST[:n_classes], dtype=np.uint8).reshape(n_classes, 3)
    return np.resize(_sequence(), (n_classes, 3))


def class_palette(names: Sequence[str], given: Palette | None = None) -> np.ndarray:
    """Colours for classes, (len(names), 3) uint8: a first class named "background" is grey and costs no colour."""
    if given is None and names and names[0].lower() == "background":
        return np.concatenate([np.array([BACKGROUND], dtype=np.uint8), palette(len(names) - 1)])
    return palette(len(names), given)


def text_colour(background: Sequence[int]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on a colour (relative luminance as of WCAG)."""
    values = np.asarray(background, dtype=np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return (0, 0, 0) if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else (255, 255, 255)

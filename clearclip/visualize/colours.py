"""Colours of classes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from clearclip.utils.errors import UserError

Palette = np.ndarray | Sequence[Sequence[int]]

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

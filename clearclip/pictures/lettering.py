"""Letters: DejaVu, which comes with Matplotlib, so that pictures look the same everywhere."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import ImageFont


@lru_cache(maxsize=64)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, ``size`` pixels high."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), size)


def text_size(text: str, letters: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height in pixels; the height is that of any line of these letters."""
    return round(letters.getlength(text) + 0.5), sum(letters.getmetrics())


def shorten(text: str, letters: ImageFont.FreeTypeFont, width: float) -> str:
    """``text`` on one line, cut with an ellipsis where it is wider than ``width`` pixels."""
    text = " ".join(text.split())
    if letters.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if letters.getlength(text[:middle].rstrip() + "…") <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"

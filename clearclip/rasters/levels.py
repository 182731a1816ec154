"""How the levels of a picture become 0..255: by the depth that the file states, or as the user says."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from clearclip.utils.errors import UserError

#: The level that becomes 0 and the level that becomes 255; or "percentiles": the 2nd and the 98th of the picture.
Levels: TypeAlias = "tuple[float, float] | str"
PERCENTILES = "percentiles"
LEVELS_REMEDY = "say which levels are black and white: --levels 0 4095, levels=(0, 4095), or percentiles"
#: Below so much of the range, at its 99th percentile, a picture of 16 bits is taken to hold levels of fewer bits.
_DARK_SHARE = 1 / 8
#: So many values are looked at for percentiles and for that warning.
_SAMPLE = 1_000_000


class PictureWarning(UserWarning):
    """How a picture was read may not be what was meant; the message says what to do."""


def check_levels(levels: Levels | Sequence[float] | None) -> Levels | None:
    """Levels as a user gave them, on a command line, in a config or in Python.

    Raises:
        UserError: neither two ascending numbers nor "percentiles".
    """
    if levels is None:
        return None
    # A command line gives a list of words, also where there is one word only.
    if levels in (PERCENTILES, [PERCENTILES], (PERCENTILES,)):
        return PERCENTILES
    try:
        low, high = (float(level) for level in levels)
    except (TypeError, ValueError) as error:
        raise UserError(f"levels {levels!r}: give two numbers, such as 0 4095, or {PERCENTILES}") from error
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise UserError(f"levels {low:g} {high:g}: the first must be below the second")
    return low, high


def _evenly_spaced(values: np.ndarray) -> np.ndarray:
    """About a million values of an array, flat: percentiles of all of them would take seconds."""
    flat = values.reshape(-1)
    return flat[:: max(1, flat.size // _SAMPLE)]


def percentile_levels(values: np.ndarray, valid: np.ndarray | None = None) -> tuple[float, float]:
    """The 2nd and the 98th percentile over all bands together, so that colours keep their balance.

    Args:
        values: (H, W, bands).
        valid: (H, W) bool, where the picture has data; None means everywhere.
    """
    if valid is not None:
        values = values[valid]
    sample = _evenly_spaced(values)
    sample = sample[np.isfinite(sample)]
    # A raster without data anywhere: any two levels will do.
    if sample.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(sample, (2, 98))
    # A picture of one level must not be divided by a range of 0.
    return float(low), float(max(high, low + 1e-6))


def to_bytes(
    values: np.ndarray, levels: Levels | None = None, depth: int | None = None, name: str = "an image array"
) -> np.ndarray:
    """Levels of any type as 0..255, by one rule for every file and array.

    ======================= ==================================================================================
    ``levels`` given        linear between the two, or between two percentiles; beyond them black and white
    8 bits                  as stored
    a stated depth          linear from 0 to the largest level of so many bits (12 bits: 4095)
    16 bits                 the upper 8 bits, as OpenCV and Pillow read PNG; with a warning where all is nearly black
    float, all in 0..1      times 255
    others                  refused: nothing says what is white
    ======================= ==================================================================================

    Args:
        values: any shape, numbers.
        levels: as the user says.
        depth: bits that the file's tags state, where they are fewer than those of its type.
        name: of the picture, for what is said about it.

    Returns:
        uint8, of the same shape.

    Raises:
        UserError: nothing says which levels are black and white.
    """
    if isinstance(levels, str):
        levels = percentile_levels(values)
    if levels is not None:
        low, high = levels
        return _stretch(values, low, high)
    if values.dtype == np.uint8:
        if depth in (None, 8):
            return values
        return _stretch(values, 0, 2**depth - 1)
    if values.dtype == np.uint16:
        if depth not in (None, 16):
            return _stretch(values, 0, 2**depth - 1)
        _warn_of_darkness(values, name)
        # Not values / 257, which would be nearer: MMSegmentation's evaluations see what OpenCV makes of 16 bits.
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind == "f" and _within(values, 0, 1):
        return _stretch(values, 0, 1)
    raise UserError(f"{name} has levels of type {values.dtype}, of which none is known to be white; {LEVELS_REMEDY}")


def _stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values of any type as uint8, linear from ``low`` (0) to ``high`` (255)."""
    # float32 halves the memory of a large raster, and differs from float64 by less than the rounding to 8 bits.
    scaled = (np.nan_to_num(values.astype(np.float32)) - np.float32(low)) * np.float32(255 / (high - low))
    return np.clip(scaled, 0, 255).round().astype(np.uint8)


def _within(values: np.ndarray, low: float, high: float) -> bool:
    finite_values = values[np.isfinite(values)]
    if finite_values.size == 0:
        return True
    return bool(finite_values.min() >= low and finite_values.max() <= high)


def _warn_of_darkness(values: np.ndarray, name: str) -> None:
    """16 bits often hold levels of 10, 12 or 14 bits, whose picture would be nearly black."""
    if values.size == 0:
        return
    # Not the largest level: one pixel that is broken or shines would hide that all others are dark.
    bright = int(np.percentile(_evenly_spaced(values), 99))
    if 0 < bright < 65536 * _DARK_SHARE:
        largest = int(values.max())
        white = 2 ** max(8, largest.bit_length()) - 1
        warnings.warn(
            f"{name} has 16 bits but hardly a level above {bright} (the largest is {largest}), so it is nearly black; "
            f"if white is {white}, say so: --levels 0 {white}, or levels=(0, {white})",
            PictureWarning,
            stacklevel=3,
        )

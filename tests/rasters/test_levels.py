"""Levels of any type as 0..255."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip.rasters.levels import check_levels, percentile_levels, to_bytes
from clearclip.utils.errors import UserError


def test_levels_are_stretched_as_by_hand() -> None:
    values = np.array([-5, 0, 100, 200, 300, 1000], np.int32)
    by_hand = [round(min(1, max(0, (value - 100) / 200)) * 255) for value in values.tolist()]
    assert to_bytes(values, (100, 300)).tolist() == by_hand
    assert to_bytes(np.array([0.0, 0.5, 1.0, np.nan]), (0, 1)).tolist() == [0, 128, 255, 0]


def test_stated_depths() -> None:
    assert to_bytes(np.array([0, 4095], np.uint16), depth=12).tolist() == [0, 255]
    assert to_bytes(np.array([0, 15], np.uint8), depth=4).tolist() == [0, 255]
    assert to_bytes(np.array([0x1234, 0xFFFF], np.uint16)).tolist() == [0x12, 0xFF]


def test_percentiles() -> None:
    values = np.arange(1000, dtype=np.float64).reshape(10, 100, 1)
    assert percentile_levels(values) == pytest.approx(tuple(np.percentile(values, (2, 98))))
    valid = np.zeros((10, 100), bool)
    assert percentile_levels(values, valid) == (0.0, 1.0)
    valid[0] = True
    low, high = percentile_levels(np.full((10, 100, 1), 7.0), valid)
    assert low == 7 < high


@pytest.mark.parametrize("levels", ["percentiles", ["percentiles"], ("percentiles",)])
def test_the_word_in_every_spelling(levels: object) -> None:
    assert check_levels(levels) == "percentiles"


@pytest.mark.parametrize("levels", [(1, 1), (2, 1), (0, float("nan")), (0,), "all", (0, 1, 2)])
def test_no_levels(levels: object) -> None:
    with pytest.raises(UserError, match="levels"):
        check_levels(levels)

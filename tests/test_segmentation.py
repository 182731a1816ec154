"""A result: its numbers, and what it can be turned into."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from picture_checks import make_result, noise

from clearclip.utils.errors import UserError


def test_similarity_map_agrees_with_the_windows() -> None:
    """Upsampled window by window and averaged, as the method says."""
    result = make_result(noise(24, 40), ["a, b", "c"])
    grid = result._scores.grid
    rows, columns = len(grid.rows.starts), len(grid.columns.starts)
    total, count = torch.zeros(24, 40), torch.zeros(24, 40)
    for i, y in enumerate(grid.rows.starts):
        for j, x in enumerate(grid.columns.starts):
            patches = result._scores.scores.reshape(rows, 4, columns, 4, 3)[i, :, j, :, 1]
            window = torch.nn.functional.interpolate(patches[None, None], size=(16, 16), mode="bilinear")[0, 0]
            total[y : y + 16, x : x + 16] += window
            count[y : y + 16, x : x + 16] += 1
    np.testing.assert_allclose(result.similarity_map("b"), (total / count).numpy(), atol=1e-5)
    assert result.similarity_map("c", (7, 9)).shape == (7, 9)
    titles = [title.rsplit(" · ")[0] for title, _ in result.titled_maps((4, 4))]
    assert titles == ["a", "b (a)", "c"]
    with pytest.raises(UserError, match="'d' is none of"):
        result.similarity_map("d")


def test_result_in_words_and_numbers() -> None:
    result = make_result(noise(24, 40), ["a", "b", "c"])
    counts = {name: int((result.labels == label).sum()) for label, name in enumerate("abc")}
    assert result.shares == pytest.approx({name: count / 960 for name, count in counts.items()})
    assert result.probabilities.shape == (3, 24, 40)
    assert (result.probabilities.argmax(axis=0) == result.labels).mean() > 0.999
    assert "40 × 24 pixels, 3 classes" in repr(result)

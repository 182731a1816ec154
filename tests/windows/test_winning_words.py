"""Labels among many words, against all words interpolated with PyTorch's own operations in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearclip.windows import Readout, ScoreMap, WindowGrid
from clearclip.windows.winning_words import MANY_WORDS, can_leave_out_words, winning_words


def scores_in_float64(scores: ScoreMap, size: tuple[int, int]) -> torch.Tensor:
    """Every word at every pixel, (height, width, words)."""
    rows = scores.grid.rows.weights(size[0], scores.device).double()
    columns = scores.grid.columns.weights(size[1], scores.device).double()
    return torch.einsum("hr,rcq,wc->hwq", rows, scores.scores.double(), columns)


def labels_of(scores: ScoreMap, size: tuple[int, int]) -> torch.Tensor:
    labels = torch.full(size, -1)
    for rows, columns, word in winning_words(scores, size):
        labels[rows, columns] = word
    return labels


@settings(deadline=None, max_examples=40)
@given(
    image=st.tuples(st.integers(20, 120), st.integers(20, 120)),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    crop=st.sampled_from([0, 32, 48]),
    words=st.integers(1, 60),
    spread=st.sampled_from([0.0, 0.01, 1.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_the_largest_of_all_words(image, size, crop, words, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    grid = WindowGrid.of(image, crop, crop // 2, (8, 8))
    cells = [len(axis.starts) * axis.cells for axis in (grid.rows, grid.columns)]
    # Words that differ everywhere are left out soon; noise alone leaves most of them in.
    by_word = spread * torch.randn(words, generator=generator)
    scores = ScoreMap(torch.randn(*cells, words, generator=generator) + by_word, grid)
    by_pixel = scores_in_float64(scores, size)
    largest = by_pixel.amax(dim=2)
    labels = labels_of(scores, size)
    chosen = by_pixel.gather(2, labels[:, :, None])[:, :, 0]
    assert (largest - chosen).max() <= 1e-5 * scores.scores.abs().max()


def test_the_first_of_equal_words():
    torch.manual_seed(0)
    grid = WindowGrid.of((64, 96), 32, 16, (8, 8))
    cells = [len(axis.starts) * axis.cells for axis in (grid.rows, grid.columns)]
    different_words = torch.randn(*cells, 20)
    scores = ScoreMap(torch.cat([different_words, different_words], dim=2), grid)
    assert labels_of(scores, (60, 90)).max() < 20


@pytest.mark.parametrize("readout", [Readout(), Readout(area_thd=0.02), Readout(prob_thd=0.01), Readout(softmax=False)])
def test_labels_of_many_words(readout, monkeypatch):
    """Whatever the readout, the labels are those without the shortcut."""
    torch.manual_seed(1)
    grid = WindowGrid.of((64, 96), 32, 16, (8, 8))
    cells = [len(axis.starts) * axis.cells for axis in (grid.rows, grid.columns)]
    scores = ScoreMap(torch.randn(*cells, MANY_WORDS) * 0.02, grid)
    word_to_class = torch.arange(MANY_WORDS) // 2
    assert can_leave_out_words(scores)
    labels = readout.labels(scores, (75, 110), word_to_class)
    monkeypatch.setattr("clearclip.windows.readout.can_leave_out_words", lambda scores: False)
    assert torch.equal(labels, readout.labels(scores, (75, 110), word_to_class))


def test_words_are_left_out(monkeypatch):
    """Of words that are far below another one, nothing is interpolated."""
    grid = WindowGrid.of((64, 96), 32, 16, (8, 8))
    cells = [len(axis.starts) * axis.cells for axis in (grid.rows, grid.columns)]
    scores = ScoreMap(torch.rand(*cells, 300) * 0.1, grid)
    scores.scores[..., [7, 100]] += 1
    interpolated_words = set()
    argmax = torch.Tensor.argmax

    def count(pixels, dim):
        interpolated_words.add(pixels.shape[dim])
        return argmax(pixels, dim)

    monkeypatch.setattr(torch.Tensor, "argmax", count)
    assert set(labels_of(scores, (64, 96)).unique().tolist()) == {7, 100}
    assert interpolated_words == {2}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_leave_all_words_in(value):
    grid = WindowGrid.of((64, 96), 32, 16, (8, 8))
    cells = [len(axis.starts) * axis.cells for axis in (grid.rows, grid.columns)]
    scores = ScoreMap(torch.rand(*cells, 30), grid)
    scores.scores[2, 3, 4] = value
    assert labels_of(scores, (64, 96)).min() >= 0


def test_other_scores_are_no_means_of_patches():
    grid = WindowGrid.of((64, 96), 32, 16, (8, 8))
    few_words = ScoreMap(torch.rand(14, 20, MANY_WORDS - 1), grid)
    assert not can_leave_out_words(few_words)

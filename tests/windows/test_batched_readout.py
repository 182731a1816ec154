"""Labels of several images at once are those of each image alone."""

from __future__ import annotations

import pytest
import torch

from clearclip.windows import INVALID_LABEL, Readout, ScoreMap, WindowGrid, batched_readout, labels_of_images

SIZE = (90, 120)
GRID = WindowGrid.of((64, 96), 32, 16, (8, 8))
WORD_TO_CLASS = torch.tensor([0, 0, 1, 2, 2])


def score_maps(count: int) -> list[ScoreMap]:
    generator = torch.Generator().manual_seed(0)
    rows = len(GRID.rows.starts) * GRID.rows.cells
    columns = len(GRID.columns.starts) * GRID.columns.cells
    return [ScoreMap(torch.rand(rows, columns, 5, generator=generator), GRID) for _ in range(count)]


@pytest.mark.parametrize("readout", [Readout(), Readout(prob_thd=0.9), Readout(prob_thd=0.8, softmax=False)])
@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_labels_are_those_of_each_image(readout, at_once, monkeypatch):
    monkeypatch.setitem(batched_readout.TILE_BYTES, "cpu", at_once * 4 * 5 * SIZE[0] * SIZE[1])
    maps = score_maps(5)
    together = labels_of_images(readout, maps, SIZE, WORD_TO_CLASS)
    alone = torch.stack([readout.labels(scores, SIZE, WORD_TO_CLASS) for scores in maps])
    # Products of another shape are rounded differently: ties may fall the other way.
    assert (together == alone).float().mean() > 0.999
    assert len(alone.unique()) > 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_image_that_is_not_finite_is_marked(value):
    maps = score_maps(3)
    maps[1].scores[0, 0, 0] = value
    labels = labels_of_images(Readout(), maps, SIZE, WORD_TO_CLASS)
    assert (labels[1] == INVALID_LABEL).all()
    assert (labels[[0, 2]] >= 0).all()

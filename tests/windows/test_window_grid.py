"""The fused tail against the plain way, with PyTorch's own operations at full size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clearclip import UserError
from clearclip.windows import Readout, ScoreMap, WindowGrid, score_map, window_grid


def plain_logits(grids, grid: WindowGrid, image_size, patch, size):
    """Upsample every window, cut, average, resize: (K, *size)."""
    words = grids.shape[-1]
    total, count = torch.zeros(words, *image_size), torch.zeros(image_size)
    windows = iter(grids.permute(0, 3, 1, 2))
    top, left = grid.rows.pad[0], grid.columns.pad[0]
    for y in grid.rows.starts:
        for x in grid.columns.starts:
            window = next(windows)
            up = F.interpolate(window[None], scale_factor=patch, mode="bilinear", align_corners=False)[0]
            h, w = grid.rows.extent, grid.columns.extent
            total[:, y : y + h, x : x + w] += up[:, top : top + h, left : left + w]
            count[y : y + h, x : x + w] += 1
    return F.interpolate((total / count)[None], size=size, mode="bilinear", align_corners=False)[0]


CASES = [
    # image size, crop, stride, words, original size: VOC, COCO-Stuff, Cityscapes, padded, upright
    ((448, 597), 448, 224, 21, (375, 500)),
    ((448, 597), 448, 224, 171, (480, 640)),
    ((448, 896), 224, 224, 19, (512, 1024)),
    ((300, 401), 448, 224, 60, (231, 309)),
    ((700, 448), 448, 224, 30, (900, 576)),
]


@pytest.mark.parametrize(("image_size", "crop", "stride", "words", "size"), CASES)
@pytest.mark.parametrize("tile_bytes", [score_map.TILE_BYTES["cpu"], 200_000])
def test_labels_and_probabilities(image_size, crop, stride, words, size, tile_bytes, monkeypatch):
    monkeypatch.setitem(score_map.TILE_BYTES, "cpu", tile_bytes)
    monkeypatch.setattr(score_map, "STRIP_BYTES", 50 * tile_bytes)
    torch.manual_seed(words)
    grid = WindowGrid.of(image_size, crop, stride, (16, 16))
    grids = torch.randn(grid.count, grid.rows.cells, grid.columns.cells, words) * 0.05
    classes = torch.arange(words) // 2
    logits = plain_logits(grids, grid, image_size, 16, size)
    by_word = (logits * 50).softmax(0)
    wanted = torch.stack([by_word[2 * k : 2 * k + 2].amax(0) for k in range((words + 1) // 2)])

    scores = ScoreMap(grid.join(grids), grid)
    torch.testing.assert_close(Readout(50).probabilities(scores, size, classes), wanted, atol=1e-4, rtol=0)
    for threshold in (0.0, 0.3):
        got = Readout(50, threshold).labels(scores, size, classes)
        expected = wanted.argmax(0).masked_fill(wanted.amax(0) < threshold, 0)
        differs = got != expected
        assert differs.float().mean() < 1e-3
        best = wanted.topk(2, dim=0).values
        assert ((best[0] - best[1] < 1e-4) | ((best[0] - threshold).abs() < 1e-4))[differs].all()


def test_windows_of_the_protocol():
    def starts(length, crop=448, stride=224):
        return WindowGrid.of((length, 448), crop, stride, (16, 16)).rows.starts

    assert starts(448) == (0,)
    assert starts(449) == (0, 1)
    assert starts(597) == (0, 149)
    assert starts(672) == (0, 224)
    assert starts(673) == (0, 224, 225)
    assert starts(300) == (0,)
    assert starts(896, 224) == (0, 224, 448, 672)


def test_padding_is_half_before_half_after():
    grid = WindowGrid.of((37, 50), 64, 32, (8, 8))
    assert (grid.rows.pad, grid.columns.pad) == ((1, 2), (3, 3))
    (window,) = grid.cut(torch.ones(3, 37, 50))
    assert window.shape == (3, 40, 56)
    assert window.sum() == 3 * 37 * 50
    assert window[:, 0].sum() == 0
    assert window[:, 1, 3].sum() == 3


@pytest.mark.parametrize(
    ("crop", "stride", "message"),
    [(64, 65, "larger than slide_crop"), (64, 0, "at least 1"), (-1, 32, "slide_crop"), (64, 1.5, "slide_stride")],
)
def test_impossible_windows(crop, stride, message):
    with pytest.raises(UserError, match=message):
        WindowGrid.of((100, 100), crop, stride, (8, 8))


def test_work_is_bounded(monkeypatch):
    """No tile is larger than allowed, however many words and pixels."""
    monkeypatch.setitem(score_map.TILE_BYTES, "cpu", 1 << 20)
    monkeypatch.setattr(score_map, "STRIP_BYTES", 4 << 20)
    grid = WindowGrid.of((448, 896), 448, 224, (16, 16))
    joined = torch.randn(28, grid.columns.cells * len(grid.columns.starts), 300)
    tiles = ScoreMap(joined, grid).tiles((1500, 3000))
    sizes = [logits.numel() * 4 for _, _, parts in tiles for logits in parts]
    assert max(sizes) <= 1 << 20
    assert sum(sizes) == 300 * 1500 * 3000 * 4


def test_matrices_of_many_sizes_are_bounded(monkeypatch):
    """The latest stay, at most so many bytes; all are right."""
    monkeypatch.setattr(window_grid, "CACHED_BYTES", 200_000)
    first = None
    for length in range(100, 180):
        axis = window_grid.Axis.sliding(length, 64, 32, 8, 8)
        weights = axis.weights(length, torch.device("cpu"))
        assert axis.weights(length, torch.device("cpu")) is weights
        first = (axis, length, weights.clone()) if first is None else first
        assert sum(one.nbytes for one in window_grid._cached_weights.values()) <= 200_000
    axis, length, wanted = first
    assert torch.equal(axis.weights(length, torch.device("cpu")), wanted)

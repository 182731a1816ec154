"""Labels among many words: words that cannot have the largest score anywhere in a tile are left out of it.

A pixel's score is a mean of the patches around it, with weights that are not negative and sum to 1 (bilinear
interpolation, and the mean over windows that overlap). So it lies between the smallest and the largest score of the
patches that the tile reaches. A word whose largest patch there is below another word's smallest is below that word at
every pixel of the tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from clearclip.windows.score_map import TILE_BYTES, ScoreMap

#: From so many words on it is much quicker to leave words out. All published benchmarks have fewer.
MANY_WORDS = 200
#: Pixels along the side of a tile: few words can win in a small tile, and large ones have fewer steps.
LEAST_SIDE, LARGEST_SIDE = 16, 64
#: Float32 rounding of a mean of patches, as a share of the largest score: a word that is below by less stays in.
ROUNDING = 1e-5


class WinningWords(NamedTuple):
    """The word with the largest score at each pixel of a part of the output, (rows, columns) int64."""

    rows: slice
    columns: slice
    word: Tensor


def can_leave_out_words(scores: ScoreMap) -> bool:
    """Whether :func:`winning_words` may be used, and is quicker than to interpolate every word.

    Scores of another kind are no means of patches. On a GPU the number of words that are left would have to be waited
    for.
    """
    return type(scores) is ScoreMap and scores.device.type == "cpu" and scores.scores.shape[2] >= MANY_WORDS


def winning_words(scores: ScoreMap, size: tuple[int, int]) -> Iterator[WinningWords]:
    """The word with the largest score at each pixel, the first one of several, tile by tile.

    Args:
        scores: of the image's words; :func:`can_leave_out_words` holds, and they are finite.
        size: height and width of the output in pixels.

    The word is the one that all words interpolated would give, but where two words differ by float32 rounding alone.
    """
    words = scores.scores.shape[2]
    margin = ROUNDING * scores.scores.abs().max()
    side = math.isqrt(TILE_BYTES["cpu"] // (4 * words))
    side = max(LEAST_SIDE, min(side, LARGEST_SIDE))
    row_tiles = _reached_patches(scores.grid.rows.weights(size[0], scores.device), side)
    column_tiles = _reached_patches(scores.grid.columns.weights(size[1], scores.device), side)
    for rows, patch_rows, row_weights in row_tiles:
        band = scores.scores[patch_rows]
        # Bounds of every word over these rows of patches, which all tiles beside each other have in common.
        highest_by_column, lowest_by_column = band.amax(dim=0), band.amin(dim=0)
        for columns, patch_columns, column_weights in column_tiles:
            highest = highest_by_column[patch_columns].amax(dim=0)
            lowest = lowest_by_column[patch_columns].amin(dim=0)
            # In ascending order, so that the first of equal words stays the first. Where scores are not finite no
            # comparison holds, and all words stay.
            is_below = highest < lowest.max() - margin
            candidates = (~is_below).nonzero().flatten()
            patches = band[:, patch_columns][:, :, candidates]
            spread = column_weights @ patches
            pixels = (row_weights @ spread.flatten(1)).unflatten(1, (-1, len(candidates)))
            # Words lie beside each other in memory here: along another axis argmax takes three times as long.
            yield WinningWords(rows, columns, candidates[pixels.argmax(dim=2)])


def _reached_patches(weights: Tensor, side: int) -> list[tuple[slice, Tensor, Tensor]]:
    """Cut an axis of the output into tiles.

    Args:
        weights: from patches to pixels, (pixels, patches).
        side: pixels of a tile.

    Returns:
        For each tile its pixels, the patches that reach it, and the weights of these, (pixels, patches).
    """
    tiles = []
    for start in range(0, len(weights), side):
        pixels = slice(start, min(start + side, len(weights)))
        # Not a slice from the first to the last: between two windows that overlap lie patches that do not reach here.
        patches = (weights[pixels] != 0).any(dim=0).nonzero().flatten()
        tiles.append((pixels, patches, weights[pixels][:, patches]))
    return tiles

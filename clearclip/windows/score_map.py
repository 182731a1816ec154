"""The scores of an image's words at every pixel, computed tile by tile when they are read.

Upsampling, averaging and resizing are one linear map, so the scores of patches are all that is held. No array of
words × height × width is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from clearclip.windows.window_grid import Axis, WindowGrid, resize_bands, resize_weights

#: Bytes of scores in work at a time: what a CPU's caches like, and what keeps a GPU busy.
TILE_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20, "mps": 128 << 20}
#: Bytes of the intermediate (words × patch rows × output columns), which bounds the width of a tile.
STRIP_BYTES = 96 << 20


class Tile(NamedTuple):
    """A part of the output: which rows and columns, and their scores, (words, rows, columns) for some words each."""

    rows: slice
    columns: slice
    scores: Iterable[Tensor]


@dataclass(frozen=True)
class ScoreMap:
    """Scores of patches, averaged over windows where they overlap, and resized.

    Attributes:
        scores: (rows of patches, columns of patches, words) float32, windows side by side as
            :meth:`WindowGrid.join` puts them; cosine similarities unless the method has scores of its own.
        grid: the windows that the patches belong to.
    """

    scores: Tensor
    grid: WindowGrid

    @property
    def are_probabilities(self) -> bool:
        """Whether what is read are probabilities already, of which no softmax is to be taken."""
        return False

    @classmethod
    def of_cells(cls, scores: Tensor) -> ScoreMap:
        """A score for each cell of one grid over the whole image, (rows, columns, words)."""
        rows, columns = (Axis(length, (0,), length, (0, 0), length, direct=True) for length in scores.shape[:2])
        return cls(scores, WindowGrid(rows, columns))

    @property
    def device(self) -> torch.device:
        """Where the scores are."""
        return self.scores.device

    def to(self, device: torch.device | str) -> ScoreMap:
        """The same on another device."""
        return replace(self, scores=self.scores.to(device))

    def tiles(self, size: tuple[int, int]) -> Iterator[Tile]:
        """All scores at a size, one tile after the other.

        Args:
            size: height and width of the output in pixels.
        """
        height, width = size
        by_word = self.scores.permute(2, 0, 1).contiguous()
        words, patch_rows, _ = by_word.shape
        row_weights = self.grid.rows.weights(height, self.device)
        column_weights = self.grid.columns.weights(width, self.device)
        strip = max(1, min(width, STRIP_BYTES // (4 * words * patch_rows)))
        tile = max(1, min(height, TILE_BYTES[self.device.type] // (4 * words * strip)))
        bands = self.grid.rows.bands(height, tile)
        for first_column in range(0, width, strip):
            columns = slice(first_column, min(first_column + strip, width))
            # Columns first: the product is used by all tiles of the strip.
            spread = by_word @ column_weights[columns].T
            for rows, band in bands:
                # Most patch rows do not reach a tile, and their weights are 0.
                yield Tile(rows, columns, [row_weights[rows, band] @ spread[:, band]])

    def band(self, size: tuple[int, int], rows: slice, words: slice) -> Tensor:
        """The scores of some words in some rows of the output, (rows, width, words)."""
        row_weights = self.grid.rows.weights(size[0], self.device)
        column_weights = self.grid.columns.weights(size[1], self.device)
        spread = column_weights @ self.scores[..., words]
        return (row_weights[rows] @ spread.flatten(1)).unflatten(1, (size[1], -1))

    def pooled(self, size: tuple[int, int], blocks: tuple[int, int]) -> Tensor:
        """The mean scores of blocks of pixels, (size[0] // blocks[0], size[1] // blocks[1], words) float64."""
        means = []
        # The mean of pixels is the mean of their weights: no array of height × width × words is made.
        for axis, length, block in zip((self.grid.rows, self.grid.columns), size, blocks, strict=True):
            weights = axis.weights(length, self.device).double()
            means.append(weights[: length // block * block].unflatten(0, (-1, block)).mean(dim=1))
        return torch.einsum("hr,rcq,wc->hwq", means[0], self.scores.double(), means[1])

    def dense(self, size: tuple[int, int]) -> Tensor:
        """All scores at a size, (height, width, words), at once: for what works on the image as a whole."""
        scores = torch.empty(*size, self.scores.shape[2], device=self.device)
        for rows, columns, groups_of_words in self.tiles(size):
            scores[rows, columns] = torch.cat(list(groups_of_words)).permute(1, 2, 0)
        return scores

    def word_map(self, word: int, size: tuple[int, int]) -> Tensor:
        """The scores of one word at a size, (height, width), before any softmax."""
        row_weights = self.grid.rows.weights(size[0], self.device)
        column_weights = self.grid.columns.weights(size[1], self.device)
        return row_weights @ self.scores[..., word] @ column_weights.T


class ScoresOfInput(ScoreMap):
    """Scores that are computed at the size of the image that was cut into windows, and then resized.

    Subclasses say what they are in :meth:`input_rows`.
    """

    def input_rows(self, rows: slice) -> Tensor:
        """Scores in some rows of the input, (words, rows, width of the input)."""
        raise NotImplementedError

    def tiles(self, size: tuple[int, int]) -> Iterator[Tile]:
        height, width = size
        words, image_width = self.scores.shape[2], self.grid.columns.length
        row_weights = resize_weights(self.grid.rows.length, height, self.device)
        column_weights = resize_weights(image_width, width, self.device)
        tile = max(1, min(height, TILE_BYTES[self.device.type] // (4 * words * max(width, image_width))))
        # The rows of the input that a tile is resized from are computed for this tile alone.
        for rows, image_rows in resize_bands(self.grid.rows.length, height, tile):
            scores = self.input_rows(image_rows) @ column_weights.T
            yield Tile(rows, slice(0, width), [row_weights[rows, image_rows] @ scores])

    def band(self, size: tuple[int, int], rows: slice, words: slice) -> Tensor:
        # All words at once, since their softmax or their classes' largest needs all of them.
        return self.dense(size)[rows, :, words]

    def pooled(self, size: tuple[int, int], blocks: tuple[int, int]) -> Tensor:
        height, width = size[0] // blocks[0] * blocks[0], size[1] // blocks[1] * blocks[1]
        full = self.dense(size)[:height, :width].double()
        return full.unflatten(0, (-1, blocks[0])).unflatten(2, (-1, blocks[1])).mean(dim=(1, 3))


@dataclass(frozen=True)
class WindowProbabilities(ScoresOfInput):
    """The softmax over words at every pixel of each window, averaged over windows and resized (TIPSv2, dino.txt).

    Attributes:
        logit_scale: factor of the scores before the softmax.
    """

    logit_scale: float = 1.0
    are_probabilities = True

    def input_rows(self, image_rows: slice) -> Tensor:
        rows, columns = self.grid.rows, self.grid.columns
        size = (image_rows.stop - image_rows.start, columns.length)
        total = torch.zeros(self.scores.shape[2], *size, device=self.device)
        windows_of_pixel = torch.zeros(size, device=self.device)
        windows = self.scores.unflatten(0, (-1, rows.cells)).unflatten(2, (-1, columns.cells))
        row_weights = rows.window_weights(self.device)
        column_weights = columns.window_weights(self.device)
        for y, window_row in zip(rows.starts, windows, strict=True):
            top, bottom = max(y, image_rows.start), min(y + rows.extent, image_rows.stop)
            # None of the rows is in these windows.
            if top >= bottom:
                continue
            inside = slice(top - image_rows.start, bottom - image_rows.start)
            for x, window in zip(columns.starts, window_row.unbind(1), strict=True):
                across = slice(x, x + columns.extent)
                scores = row_weights[top - y : bottom - y] @ window.permute(2, 0, 1) @ column_weights.T
                total[:, inside, across] += (scores * self.logit_scale).softmax(dim=0)
                windows_of_pixel[inside, across] += 1
        return total / windows_of_pixel


@dataclass(frozen=True)
class ClassMaxima(ScoresOfInput):
    """Scores of which the largest among a class's words is taken before they are resized to the original (LPOSS).

    Attributes:
        word_to_class: the class of each word, (words,) int64.
    """

    word_to_class: Tensor

    def to(self, device: torch.device | str) -> ClassMaxima:
        return replace(self, scores=self.scores.to(device), word_to_class=self.word_to_class.to(device))

    def input_rows(self, rows: slice) -> Tensor:
        size = (self.grid.rows.length, self.grid.columns.length)
        scores = ScoreMap(self.scores, self.grid).band(size, rows, slice(None))
        return spread_class_maxima(scores, self.word_to_class).permute(2, 0, 1)


def class_count_bound(word_to_class: Tensor) -> int:
    """At least the number of classes: on a GPU, which would be waited for, as many as there are words."""
    if word_to_class.device.type == "cpu":
        return int(word_to_class[-1]) + 1
    return len(word_to_class)


def largest_by_class(by_word: Tensor, word_to_class: Tensor) -> Tensor:
    """Per class the largest of its words: (words, …) to (:func:`class_count_bound`, …), -inf for none."""
    classes = class_count_bound(word_to_class)
    # One word in each class: nothing to choose from, and nothing to copy. On a GPU the bound does not tell.
    if word_to_class.device.type == "cpu" and classes == len(word_to_class):
        return by_word
    index = word_to_class.view(-1, *[1] * (by_word.dim() - 1)).expand_as(by_word)
    lowest = by_word.new_full((classes, *by_word.shape[1:]), -torch.inf)
    return lowest.scatter_reduce_(0, index, by_word, "amax")


def spread_class_maxima(scores: Tensor, word_to_class: Tensor) -> Tensor:
    """Every word's score replaced by the largest of its class's words: (…, words) to the same."""
    return largest_by_class(scores.movedim(-1, 0), word_to_class)[word_to_class].movedim(0, -1)

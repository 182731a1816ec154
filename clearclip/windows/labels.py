"""From the similarities of patches and words to the labels of pixels, in tiles of bounded memory.

Upsampling, averaging and resizing are one linear map, softmax keeps the order, and the largest word's class is the
largest class: labels need only an argmax over words per pixel. The threshold compares the largest probability,
1 / sum(exp(logit - largest)), which one pass over the same tile gives. No array of words × height × width is made.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from clearclip.windows.grid import WindowGrid

#: Bytes of logits in work at a time: what a CPU's caches like, and what keeps a GPU busy.
TILE_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20, "mps": 128 << 20}
#: Bytes of the intermediate (words × patch rows × output columns), which bounds the width of a tile.
STRIP_BYTES = 96 << 20


def label_map(
    similarities: Tensor,
    grid: WindowGrid,
    size: tuple[int, int],
    word_to_class: Tensor,
    logit_scale: float,
    prob_thd: float = 0.0,
) -> Tensor:
    """Labels of the original image's pixels.

    Args:
        similarities: (rows of patches, columns of patches, words), cosine, as :meth:`WindowGrid.join` gives them.
        grid: the windows they come from.
        size: height and width of the original image.
        word_to_class: (words,) int64, ascending from 0.
        logit_scale: factor before the softmax over words.
        prob_thd: where the largest probability is below, the label is 0.

    Returns:
        (height, width) int64
    """
    labels = torch.empty(size, dtype=torch.int64, device=similarities.device)
    for rows, columns, logits in _tiles(similarities, grid, size):
        largest, word = logits.max(dim=0)
        label = word_to_class[word]
        if prob_thd > 0:
            probability = 1 / ((logits - largest) * logit_scale).exp_().sum(dim=0)
            label = label.masked_fill(probability < prob_thd, 0)
        labels[rows, columns] = label
    return labels


def class_probabilities(
    similarities: Tensor, grid: WindowGrid, size: tuple[int, int], word_to_class: Tensor, logit_scale: float
) -> Tensor:
    """Softmax over words, then per class the largest of its words: (classes, height, width) float32.

    Arguments as for :func:`label_map`. The values of a pixel need not sum to 1 where classes have several words.
    """
    classes = int(word_to_class[-1]) + 1
    out = torch.empty(classes, *size, device=similarities.device)
    for rows, columns, logits in _tiles(similarities, grid, size):
        probabilities = (logits * logit_scale).softmax(dim=0)
        if classes < len(word_to_class):
            index = word_to_class[:, None, None].expand_as(probabilities)
            best = probabilities.new_zeros(classes, *probabilities.shape[1:])
            probabilities = best.scatter_reduce_(0, index, probabilities, "amax")
        out[:, rows, columns] = probabilities
    return out


def _tiles(similarities: Tensor, grid: WindowGrid, size: tuple[int, int]) -> Iterator[tuple[slice, slice, Tensor]]:
    """Logits (words, rows, columns) of one tile of the output after the other, with its place."""
    height, width = size
    device = similarities.device
    by_word = similarities.permute(2, 0, 1).contiguous()
    words, patch_rows, _ = by_word.shape
    row_weights = grid.rows.weights(height, device)
    column_weights = grid.columns.weights(width, device)
    strip = max(1, min(width, STRIP_BYTES // (4 * words * patch_rows)))
    tile = max(1, min(height, TILE_BYTES[device.type] // (4 * words * strip)))
    bands = grid.rows.bands(height, tile)
    for left in range(0, width, strip):
        columns = slice(left, min(left + strip, width))
        spread = by_word @ column_weights[columns].T
        for rows, band in bands:
            yield rows, columns, row_weights[rows, band] @ spread[:, band]

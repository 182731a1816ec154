"""From the similarities of patches and words to the labels of pixels, in tiles of bounded memory.

Upsampling, averaging and resizing are one linear map, softmax keeps the order, and the largest word's class is the
largest class: labels need only an argmax over words per pixel. The threshold compares the largest probability,
1 / sum(exp(logit - largest)), which one pass over the same tile gives. No array of words × height × width is made, with
PAMR either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from clearclip.windows.pamr import refine
from clearclip.windows.window_grid import WindowGrid

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
    image: Tensor | None = None,
) -> Tensor:
    """Labels of the original image's pixels.

    Args:
        similarities: (rows of patches, columns of patches, words), cosine, as :meth:`WindowGrid.join` gives them.
        grid: the windows they come from.
        size: height and width of the original image.
        word_to_class: (words,) int64, ascending from 0.
        logit_scale: factor before the softmax over words.
        prob_thd: where the largest probability is below, the label is 0.
        image: the normalised image, (3, *size), by which PAMR refines the logits; None leaves them as they are.

    Returns:
        (height, width) int64
    """
    labels = torch.empty(size, dtype=torch.int64, device=similarities.device)
    for rows, columns, parts in _tiles(similarities, grid, size, image):
        word, probability = _largest(parts, logit_scale, prob_thd > 0)
        label = word_to_class[word]
        labels[rows, columns] = label if probability is None else label.masked_fill(probability < prob_thd, 0)
    return labels


def _largest(parts: Iterable[Tensor], logit_scale: float, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """The word with the largest logit at each pixel, and its probability if that is wanted.

    Args:
        parts: logits (words, rows, columns) of all words, so many at a time.
        logit_scale: factor before the softmax.
        wanted: whether to compute the probability.
    """
    largest = word = total = None
    seen = 0
    for logits in parts:
        own, index = logits.max(dim=0)
        share = ((logits - own) * logit_scale).exp_().sum(dim=0) if wanted else None
        if largest is None:
            largest, word, total = own, index, share
        else:
            if wanted:
                top = torch.maximum(largest, own)
                total = total * ((largest - top) * logit_scale).exp() + share * ((own - top) * logit_scale).exp()
            word = torch.where(own > largest, index + seen, word)
            largest = torch.maximum(largest, own)
        seen += len(logits)
    return word, 1 / total if wanted else None


def class_probabilities(
    similarities: Tensor,
    grid: WindowGrid,
    size: tuple[int, int],
    word_to_class: Tensor,
    logit_scale: float,
    image: Tensor | None = None,
) -> Tensor:
    """Softmax over words, then per class the largest of its words: (classes, height, width) float32.

    Arguments as for :func:`label_map`. The values of a pixel need not sum to 1 where classes have several words.
    """
    classes = int(word_to_class[-1]) + 1
    out = torch.empty(classes, *size, device=similarities.device)
    for rows, columns, parts in _tiles(similarities, grid, size, image):
        probabilities = (torch.cat(list(parts)) * logit_scale).softmax(dim=0)
        if classes < len(word_to_class):
            index = word_to_class[:, None, None].expand_as(probabilities)
            best = probabilities.new_zeros(classes, *probabilities.shape[1:])
            probabilities = best.scatter_reduce_(0, index, probabilities, "amax")
        out[:, rows, columns] = probabilities
    return out


def _tiles(
    similarities: Tensor, grid: WindowGrid, size: tuple[int, int], image: Tensor | None
) -> Iterator[tuple[slice, slice, Iterable[Tensor]]]:
    """One tile of the output after the other: its place, and its logits (words, rows, columns) in parts."""
    height, width = size
    device = similarities.device
    by_word = similarities.permute(2, 0, 1).contiguous()
    words, patch_rows, _ = by_word.shape
    row_weights = grid.rows.weights(height, device)
    column_weights = grid.columns.weights(width, device)
    if image is not None:
        for rows, parts in refine(by_word, row_weights, column_weights, image):
            yield rows, slice(0, width), parts
        return
    strip = max(1, min(width, STRIP_BYTES // (4 * words * patch_rows)))
    tile = max(1, min(height, TILE_BYTES[device.type] // (4 * words * strip)))
    bands = grid.rows.bands(height, tile)
    for left in range(0, width, strip):
        columns = slice(left, min(left + strip, width))
        spread = by_word @ column_weights[columns].T
        for rows, band in bands:
            yield rows, columns, [row_weights[rows, band] @ spread[:, band]]

"""Labels of several images at once, for a GPU: of images that have the same size and windows.

What is computed is what :meth:`Readout.labels` computes image by image; a GPU takes longer to be told of small kernels
than to run them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearclip.windows.readout import Readout, largest_word
from clearclip.windows.score_map import TILE_BYTES, ScoreMap

#: The label of all pixels of an image whose scores are not finite, where nobody has waited for the check.
INVALID_LABEL = -1


def can_be_batched(readout: Readout, scores: ScoreMap, size: tuple[int, int]) -> bool:
    """Whether an image's labels may be read together with those of others.

    Args:
        readout: how labels are read.
        scores: of the image.
        size: height and width of the labels.
    """
    bytes_of_image = 4 * scores.scores.shape[2] * size[0] * size[1]
    fits = bytes_of_image <= TILE_BYTES[scores.device.type]
    return type(scores) is ScoreMap and readout.area_thd == 0 and fits


def labels_of_images(
    readout: Readout, maps: Sequence[ScoreMap], size: tuple[int, int], word_to_class: Tensor
) -> Tensor:
    """The class of every pixel of images with the same windows.

    Args:
        readout: how labels are read; :func:`can_be_batched` holds.
        maps: the scores of each image.
        size: height and width of the labels of each.
        word_to_class: (words,) int64, ascending from 0.

    Returns:
        (images, height, width) int64; :data:`INVALID_LABEL` everywhere in an image with a score that is not finite.
    """
    scores = torch.stack([score_map.scores for score_map in maps])
    device, grid = scores.device, maps[0].grid
    row_weights = grid.rows.weights(size[0], device)
    column_weights = grid.columns.weights(size[1], device)
    # 0 times anything finite is 0, and 0 times all else is not a number, which makes the sum one.
    is_invalid = (scores * 0).flatten(1).sum(dim=1) != 0
    images_at_once = max(1, TILE_BYTES[device.type] // (4 * scores.shape[3] * size[0] * size[1]))
    has_threshold = readout.prob_thd > 0
    labels = []
    for scores_of_batch in scores.split(images_at_once):
        # (words, images, rows of patches, columns of patches), so that the largest word is found along the first axis.
        by_word = scores_of_batch.permute(3, 0, 1, 2).contiguous()
        pixels = row_weights @ (by_word @ column_weights.T)
        word, score, total = largest_word([pixels], readout.logit_scale, has_threshold and readout.softmax)
        label = word_to_class[word]
        if has_threshold:
            probability = 1 / total if readout.softmax else score
            label = label.masked_fill(probability < readout.prob_thd, 0)
        labels.append(label)
    # One batch is the rule, and need not be copied.
    labels_of_all = labels[0] if len(labels) == 1 else torch.cat(labels)
    return labels_of_all.masked_fill(is_invalid[:, None, None], INVALID_LABEL)

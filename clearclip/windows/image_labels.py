"""Labels of several images: one after the other on a CPU, in batches on a GPU where their shapes allow it.

A GPU takes longer to be told of small kernels than to run them, so what :mod:`clearclip.windows.readout` does image
by image, :mod:`clearclip.windows.batched_readout` does for many images at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from clearclip.windows.batched_readout import INVALID_LABEL, can_be_batched, labels_of_images
from clearclip.windows.readout import Readout
from clearclip.windows.score_map import ScoreMap


def labels_by_image(
    readout: Readout,
    maps: Sequence[Sequence[ScoreMap]],
    sizes: Sequence[tuple[int, int]],
    word_to_class: Tensor,
    mark_invalid: bool = False,
) -> list[Tensor]:
    """The labels of every image by every method.

    Args:
        readout: how scores become labels.
        maps: for each image, for each method its scores.
        sizes: height and width of the labels of each image.
        word_to_class: the class of each word, (words,) int64, ascending from 0.
        mark_invalid: whether all pixels of an image with scores that are not finite get
            :data:`~clearclip.windows.INVALID_LABEL`; else the scores are finite.

    Returns:
        For each image (methods, height, width) int64.
    """
    labels: dict[int, Tensor] = {}
    images_by_shape: dict[tuple, list[int]] = defaultdict(list)
    for image, (size, maps_of_image) in enumerate(zip(sizes, maps, strict=True)):
        if _is_batchable(readout, maps_of_image, size):
            first = maps_of_image[0]
            images_by_shape[size, first.grid, tuple(first.scores.shape)].append(image)
        else:
            labels[image] = _labels_of_one_image(readout, maps_of_image, size, word_to_class, mark_invalid)
    for (size, *_), images in images_by_shape.items():
        maps_of_batch = [scores for image in images for scores in maps[image]]
        labels_of_batch = labels_of_images(readout, maps_of_batch, size, word_to_class)
        by_image = labels_of_batch.unflatten(0, (len(images), -1)).unbind()
        labels.update(zip(images, by_image, strict=True))
    return [labels[image] for image in range(len(maps))]


def _is_batchable(readout: Readout, maps: Sequence[ScoreMap], size: tuple[int, int]) -> bool:
    """Whether an image's labels by all methods can be read in one batch with those of other images."""
    if maps[0].device.type == "cpu":
        return False
    shapes = {(scores.grid, tuple(scores.scores.shape)) for scores in maps}
    return len(shapes) == 1 and all(can_be_batched(readout, scores, size) for scores in maps)


def _labels_of_one_image(
    readout: Readout, maps: Sequence[ScoreMap], size: tuple[int, int], word_to_class: Tensor, mark_invalid: bool
) -> Tensor:
    labels_by_method = []
    for scores in maps:
        labels = readout.labels(scores, size, word_to_class)
        if mark_invalid:
            # No `if` on the values: the CPU would wait for a GPU to know them.
            is_finite = scores.scores.isfinite().all()
            labels = labels.masked_fill(~is_finite, INVALID_LABEL)
        labels_by_method.append(labels)
    # A view where there is one method: labels of large images are not copied.
    return labels_by_method[0][None] if len(labels_by_method) == 1 else torch.stack(labels_by_method)

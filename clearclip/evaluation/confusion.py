"""Confusion counts where the labels are: quick on a CPU, and without waiting on a GPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clearclip.utils.devices import Download, upload
from clearclip.windows import INVALID_LABEL

#: Masks of bytes have so many different values.
BYTE_VALUES = 256


@dataclass(frozen=True)
class ImageCounts:
    """The counts of one image.

    Attributes:
        by_method: pixels of each true and each predicted class, (methods, classes * classes) int64, in the cell
            truth · classes + prediction.
        has_bad_labels: whether truth or predictions have labels that are no classes.
        is_finite: whether the features that the predictions come from were finite.
    """

    by_method: Tensor
    has_bad_labels: bool
    is_finite: bool


def confusion_counts(truth: Tensor, prediction: Tensor, classes: int, ignore_index: int = 255) -> Tensor:
    """Pixels of each pair of true and predicted class of one image.

    Args:
        truth: (H, W) integers; ``ignore_index`` is not counted.
        prediction: (H, W) integers below ``classes``.

    Returns:
        (classes * classes,) int64, truth · classes + prediction.
    """
    (counts,) = count_batch([truth], [prediction[None]], classes, ignore_index).read()
    return counts.by_method[0]


class BatchCounts:
    """The counts of a batch of images, some of which a GPU may still be computing.

    Args:
        counts_on_cpu: of the images that are counted already, by their number in the batch.
        numbers_on_gpu: the numbers of the other images.
        tables_on_gpu: of these, (images, methods, classes + 2, classes + 2) int64; None where there are none.
        classes: how many there are.
    """

    def __init__(
        self,
        counts_on_cpu: dict[int, ImageCounts],
        numbers_on_gpu: list[int],
        tables_on_gpu: Tensor | None,
        classes: int,
    ):
        self._counts = counts_on_cpu
        self._numbers_on_gpu = numbers_on_gpu
        self._classes = classes
        self._download: Download | None = None
        if tables_on_gpu is not None:
            # All that is needed of the batch in one piece: counts, range check and finite check.
            self._download = Download(tables_on_gpu)

    @property
    def is_complete(self) -> bool:
        """Whether :meth:`read` has nothing to wait for."""
        return self._download is None

    def read(self) -> list[ImageCounts]:
        """The counts of each image, in the order of the batch. The host waits for a GPU here, and nowhere else."""
        if self._download is not None:
            tables = self._download.wait()
            for number, table in zip(self._numbers_on_gpu, tables, strict=True):
                self._counts[number] = _read(table, self._classes)
            self._download = None
        return [self._counts[number] for number in range(len(self._counts))]


def count_batch(
    truths: Sequence[Tensor], predictions: Sequence[Tensor], classes: int, ignore_index: int
) -> BatchCounts:
    """Count a batch, of images of any sizes. A GPU is asked for the counts, and not waited for.

    Args:
        truths: (H, W) integers of each image; ``ignore_index`` is not counted.
        predictions: (methods, H, W) integers of each image.
        classes: how many there are.
        ignore_index: the label of pixels that do not count.
    """
    counts_on_cpu: dict[int, ImageCounts] = {}
    tables_on_gpu: list[Tensor] = []
    numbers_on_gpu: list[int] = []
    for numbers in _same_sizes(predictions):
        device = predictions[numbers[0]].device
        if device.type == "cpu":
            for number in numbers:
                table = _count_on_cpu(truths[number], predictions[number], classes, ignore_index)
                counts_on_cpu[number] = _read(table, classes)
            continue
        truth = upload(torch.stack([truths[number] for number in numbers]), device)
        prediction = torch.stack([predictions[number] for number in numbers])
        tables_on_gpu.append(_count_on_gpu(truth, prediction, classes, ignore_index))
        numbers_on_gpu += numbers
    tables = torch.cat(tables_on_gpu) if tables_on_gpu else None
    return BatchCounts(counts_on_cpu, numbers_on_gpu, tables, classes)


def _same_sizes(predictions: Sequence[Tensor]) -> list[list[int]]:
    """The numbers of images, those together whose predictions have one shape and device."""
    numbers: dict[tuple, list[int]] = defaultdict(list)
    for number, prediction in enumerate(predictions):
        numbers[prediction.device, tuple(prediction.shape)].append(number)
    return list(numbers.values())


# The tables below have a row for every class of the truth, then one for its other labels and one for pixels that do not
# count; and a column for images that are not finite, then one for every predicted class and one for other labels.


def _read(table: Tensor, classes: int) -> ImageCounts:
    """The counts in a table, (methods, classes + 2, classes + 2)."""
    by_method = table[:, :classes, 1 : classes + 1].flatten(1)
    not_finite = int(table[:, :, 0].sum())
    bad_truth = int(table[:, classes, 1:].sum())
    bad_predictions = int(table[:, :, classes + 1].sum())
    return ImageCounts(by_method, bad_truth + bad_predictions > 0, not_finite == 0)


def _count_on_cpu(truth: Tensor, prediction: Tensor, classes: int, ignore_index: int) -> Tensor:
    """The table of one image, (methods, classes + 2, classes + 2) int64."""
    truth = truth.to(prediction.device)
    lowest, highest = torch.aminmax(prediction) if prediction.numel() else (-1, -1)
    if truth.dtype != torch.uint8 or lowest < 0 or highest >= classes:
        return _count_on_gpu(truth[None], prediction[None], classes, ignore_index)[0]
    # A byte needs no comparisons: all its values are counted, and sorted into rows afterwards.
    rows = truth.to(torch.int32)
    usual = min(classes, BYTE_VALUES)
    tables = torch.zeros(len(prediction), classes + 2, classes + 2, dtype=torch.int64)
    for labels, table in zip(prediction, tables, strict=True):
        cell = torch.add(labels.to(torch.int32), rows, alpha=classes)
        counts = torch.bincount(cell.flatten(), minlength=BYTE_VALUES * classes).view(BYTE_VALUES, classes)
        table[:usual, 1:-1] = counts[:usual]
        table[classes, 1:-1] = counts[usual:].sum(dim=0)
        if 0 <= ignore_index < BYTE_VALUES:
            table[min(ignore_index, classes), 1:-1] -= counts[ignore_index]
            table[classes + 1, 1:-1] = counts[ignore_index]
    return tables


def _count_on_gpu(truth: Tensor, prediction: Tensor, classes: int, ignore_index: int) -> Tensor:
    """The tables of images of one size, (images, methods, classes + 2, classes + 2) int64, without waiting.

    Args:
        truth: (images, H, W) integers.
        prediction: (images, methods, H, W) integers.
    """
    images, methods = prediction.shape[:2]
    side = classes + 2
    row = truth.to(torch.int32)[:, None].clamp(max=classes)
    if truth.dtype != torch.uint8:
        row = row.masked_fill(row < 0, classes)
    row = row.masked_fill(truth[:, None] == ignore_index, classes + 1)
    column = prediction.clamp(INVALID_LABEL, classes)
    # Columns begin with that of INVALID_LABEL, -1.
    last = images * methods * side**2
    first_cells = torch.arange(-INVALID_LABEL, last, side**2, device=prediction.device)
    cell = torch.add(column, row, alpha=side).flatten(2) + first_cells.view(images, methods, 1)
    # PyTorch's bincount would wait for the GPU.
    counts = torch.zeros(last, dtype=torch.int64, device=prediction.device)
    counts.scatter_add_(0, cell.flatten(), torch.ones_like(cell).flatten())
    return counts.view(images, methods, side, side)

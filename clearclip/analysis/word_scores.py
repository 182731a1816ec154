"""Counts and scores of a study of words and thresholds: what one pass over the images leaves behind.

Everything is counted in whole pixels, so that a score from one pass is the score of a separate run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def confusion_with_misses(truth: Tensor, labels: Tensor, classes: int, ignore_index: int) -> np.ndarray:
    """Pixels by true class and label; labels beyond the classes (distractors) share the last column.

    Args:
        truth: (H, W) integers below ``classes``, or ``ignore_index``.
        labels: (H, W) integers, any number of classes.

    Returns:
        (classes, classes + 1) int64
    """
    is_counted = truth != ignore_index
    label = labels[is_counted].clamp(max=classes)
    # One number for each pair of true class and label, so that one pass counts all pairs.
    cell = truth[is_counted].long() * (classes + 1) + label
    counts = torch.bincount(cell, minlength=classes * (classes + 1))
    return counts.view(classes, classes + 1).cpu().numpy()


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """IoU of each class in percent; NaN where a class is neither in the truth nor predicted.

    Args:
        confusion: (classes, at least classes) whole numbers, rows are the truth.
    """
    classes = len(confusion)
    hits = np.diag(confusion)
    union = confusion.sum(axis=1) + confusion.sum(axis=0)[:classes] - hits
    with np.errstate(invalid="ignore"):  # a class that does not occur is 0 of 0
        return 100 * hits / union


@dataclass(frozen=True)
class MeanIoU:
    """The two means that papers call mIoU, in percent.

    Attributes:
        occurring: over classes that are in the truth or predicted, as MMSegmentation's IoUMetric has it.
        all_classes: over all classes of the dataset, where one that does not occur counts as 0.
    """

    occurring: float
    all_classes: float

    @classmethod
    def of(cls, iou: np.ndarray) -> MeanIoU:
        """The means of (classes,) IoU, some of them NaN."""
        # NumPy would warn of the mean of nothing.
        if np.isnan(iou).all():
            return cls(float("nan"), float("nan"))
        return cls(float(np.nanmean(iou)), float(np.nan_to_num(iou).mean()))


class ThresholdCounts:
    """Counts from which every threshold's IoU follows: pixels by label and by the last threshold that they pass.

    A pixel whose probability is below ``prob_thd`` gets label 0. Therefore a threshold only moves pixels to label 0,
    and it is enough to count how many pixels of each kind pass how many thresholds.

    Args:
        classes: how many.
        thresholds: ascending, from 0 to 1.
    """

    def __init__(self, classes: int, thresholds: np.ndarray):
        self.classes = classes
        self.thresholds = thresholds
        # float32, as readout compares them.
        self._edges = torch.tensor(thresholds, dtype=torch.float32)
        bins = len(thresholds) + 1
        #: (classes, bins): pixels by label, those of them that are right, and those whose true class is 0.
        self.labelled = np.zeros((classes, bins), np.int64)
        self.right = np.zeros((classes, bins), np.int64)
        self.truly_zero = np.zeros((classes, bins), np.int64)
        #: (classes,): pixels by true class.
        self.truth = np.zeros(classes, np.int64)

    def add(self, truth: Tensor, labels: Tensor, probability: Tensor, ignore_index: int) -> None:
        """Count an image.

        Args:
            truth, labels: (H, W) integers; the labels are those without any threshold.
            probability: (H, W) float32, of the label.
        """
        is_counted = truth != ignore_index
        true_class = truth[is_counted].long()
        label = labels[is_counted]
        # How many thresholds are at most the probability: those that the pixel passes.
        passed = torch.bucketize(probability[is_counted], self._edges.to(probability.device), right=True)
        bins = len(self.thresholds) + 1
        cell = label * bins + passed
        self._add_cells(self.labelled, cell)
        self._add_cells(self.right, cell[label == true_class])
        self._add_cells(self.truly_zero, cell[true_class == 0])
        self.truth += torch.bincount(true_class, minlength=self.classes).cpu().numpy()

    def _add_cells(self, counts: np.ndarray, cells: Tensor) -> None:
        """Add to (classes, bins) how often each cell, by its index, is there."""
        counts += torch.bincount(cells, minlength=counts.size).view(counts.shape).cpu().numpy()

    def iou_by_threshold(self) -> np.ndarray:
        """IoU in percent, (thresholds, classes); NaN where a class is neither in the truth nor predicted."""
        labelled = self._above_thresholds(self.labelled)
        right = self._above_thresholds(self.right)
        fallen = self.labelled.sum() - labelled.sum(axis=0)
        fallen_right = self.truly_zero.sum() - self._above_thresholds(self.truly_zero).sum(axis=0)
        # Pixels that fall below the threshold are added to label 0, those of class 0 that fell are hits again.
        labelled[0] += fallen
        right[0] += fallen_right
        union = self.truth[:, None] + labelled - right
        with np.errstate(invalid="ignore"):
            return (100 * right / union).T

    def _above_thresholds(self, counts: np.ndarray) -> np.ndarray:
        """Of (classes, bins): how many pixels pass each threshold, (classes, thresholds)."""
        # A pixel that passes a threshold passes all lower ones, too.
        from_the_end = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
        return from_the_end[:, 1:].copy()

    def mean_by_threshold(self) -> list[MeanIoU]:
        """The curve: mIoU at each threshold."""
        return [MeanIoU.of(iou) for iou in self.iou_by_threshold()]

    def oracle(self) -> MeanIoU:
        """An upper bound of what one threshold for each class could reach, each chosen with the ground truth.

        A class other than 0 depends on its own threshold only, so its best IoU is the largest along the curve. Class 0
        gets what all others lose: its best IoU is that of the thresholds that serve it alone. No single choice need
        reach all of these at once.
        """
        best = np.full(self.classes, np.nan)
        by_threshold = self.iou_by_threshold()
        occurs = ~np.isnan(by_threshold).all(axis=0)
        best[occurs] = np.nanmax(by_threshold[:, occurs], axis=0)
        if occurs[0]:
            best[0] = self._best_iou_of_zero()
        return MeanIoU.of(best)

    def _best_iou_of_zero(self) -> float:
        """The largest IoU of class 0 over one threshold for each other class, by Dinkelbach's method for ratios."""
        fallen = self.labelled.sum(axis=1, keepdims=True) - self._above_thresholds(self.labelled)
        fallen_right = self.truly_zero.sum(axis=1, keepdims=True) - self._above_thresholds(self.truly_zero)
        right_before = self.right[0].sum()
        union_before = self.truth[0] + self.labelled[0].sum() - right_before
        rows = np.arange(1, self.classes)
        ratio = right_before / union_before if union_before else 0.0
        while True:
            # Each fallen pixel is a hit, or makes the union larger; for a given ratio the classes do not interact.
            gain = fallen_right[1:] - ratio * (fallen[1:] - fallen_right[1:])
            choice = gain.argmax(axis=1)
            right = right_before + fallen_right[rows, choice].sum()
            union = union_before + (fallen - fallen_right)[rows, choice].sum()
            better = right / union if union else 0.0
            # Dinkelbach's ratios grow until none of the choices reaches a larger one.
            if better <= ratio + 1e-12:
                return 100 * float(max(better, ratio))
            ratio = better

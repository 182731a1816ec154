"""Scores of a confusion matrix, as MMSegmentation's ``IoUMetric`` defines them, in percent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Scores of a confusion matrix.

    Each is (classes,) float64 in percent, and NaN where a class gives nothing to divide by.

    Attributes:
        confusion: (classes, classes) int64, rows are the ground truth.
        iou: NaN where a class occurs neither in the ground truth nor in the prediction.
        accuracy: the part of a class's pixels that were found, which is its recall; NaN where it is not in the truth.
        precision: the part of the pixels predicted as a class that are right; NaN where it was never predicted.
        dice: twice the common pixels, of those of truth and prediction together. It is the F-score of precision and
            recall wherever both exist.
    """

    confusion: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        return _percent(self._hits, self._predicted + self._true - self._hits)

    @property
    def accuracy(self) -> np.ndarray:
        return _percent(self._hits, self._true)

    @property
    def precision(self) -> np.ndarray:
        return _percent(self._hits, self._predicted)

    @property
    def dice(self) -> np.ndarray:
        return _percent(2 * self._hits, self._predicted + self._true)

    @property
    def summary(self) -> dict[str, float]:
        """aAcc (pixels that are right), mIoU and mAcc (means over classes), in percent."""
        pixel_accuracy = float(_percent(self._hits.sum(), self.confusion.sum()))
        return {"aAcc": pixel_accuracy, "mIoU": _mean(self.iou), "mAcc": _mean(self.accuracy)}

    @property
    def further_means(self) -> dict[str, float]:
        """mPrecision and mDice, in percent. mRecall is mAcc."""
        return {"mPrecision": _mean(self.precision), "mDice": _mean(self.dice)}

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What is said of each class, by heading: pixels in truth and prediction, and all scores."""
        return {
            "true pixels": self._true,
            "predicted pixels": self._predicted,
            "IoU": self.iou,
            "accuracy (recall)": self.accuracy,
            "precision": self.precision,
            "Dice": self.dice,
        }

    @property
    def _hits(self) -> np.ndarray:
        return np.diag(self.confusion)

    @property
    def _predicted(self) -> np.ndarray:
        return self.confusion.sum(axis=0)

    @property
    def _true(self) -> np.ndarray:
        return self.confusion.sum(axis=1)


def _percent(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0 of 0 is NaN
        return 100 * (numerator / denominator)


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN where nothing is."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else float("nan")

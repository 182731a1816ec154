"""mIoU by its definition, with NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_iou(
    truths: Sequence[np.ndarray], predictions: Sequence[np.ndarray], classes: int, ignored: int = 255
) -> float:
    """mIoU in percent: pixel sets of each class over the whole dataset; a class that occurs nowhere does not count."""
    ious = []
    for label in range(classes):
        intersection = union = 0
        for truth, prediction in zip(truths, predictions, strict=True):
            in_truth = (truth == label) & (truth != ignored)
            in_prediction = (prediction == label) & (truth != ignored)
            intersection += int((in_truth & in_prediction).sum())
            union += int((in_truth | in_prediction).sum())
        if union:
            ious.append(intersection / union)
    return 100 * float(np.mean(ious))

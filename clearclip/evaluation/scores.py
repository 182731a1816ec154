"""Scores of an evaluation: confusion counts, and IoU and accuracy from them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearclip.results.fingerprint import digest


@dataclass(frozen=True)
class Scores:
    """Scores of a confusion matrix, as MMSegmentation's ``IoUMetric`` defines them, in percent.

    Attributes:
        confusion: (classes, classes) int64, rows are the ground truth.
        iou, accuracy: (classes,) float64 per class; NaN where a class occurs neither in truth nor in prediction
            (iou), or not in truth (accuracy).
    """

    confusion: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        hit = np.diag(self.confusion).astype(np.float64)
        return 100 * _divide(hit, self.confusion.sum(0) + self.confusion.sum(1) - hit)

    @property
    def accuracy(self) -> np.ndarray:
        return 100 * _divide(np.diag(self.confusion).astype(np.float64), self.confusion.sum(1))

    @property
    def summary(self) -> dict[str, float]:
        """aAcc (pixels that are right), mIoU and mAcc (means over classes), in percent."""
        pixel = _divide(np.array([np.trace(self.confusion)], dtype=np.float64), self.confusion.sum()[None])
        return {"aAcc": float(100 * pixel[0]), "mIoU": _mean(self.iou), "mAcc": _mean(self.accuracy)}


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def confusion_counts(truth: Tensor, prediction: Tensor, classes: int, ignore_index: int = 255) -> Tensor:
    """Pixels of each pair of true and predicted class, counted where the tensors are.

    Args:
        truth: (H, W) integers; ``ignore_index`` is not counted.
        prediction: (H, W) integers below ``classes``.

    Returns:
        (classes * classes,) int64, truth · classes + prediction.
    """
    counted = truth != ignore_index
    pairs = truth[counted].long() * classes + prediction[counted].long()
    return torch.bincount(pairs, minlength=classes * classes)


@dataclass
class Evaluation:
    """What an evaluation found for one method.

    Attributes:
        classes: names in label order.
        scores: the scores.
        images: number of images counted, those of earlier sessions included.
        failures: path of an image that was skipped → the reason.
        seconds: of the evaluation loop in this session (text and model loading left out), for all methods together.
        images_per_second: of this session.
        facts: everything that changes the result, as plain data (:mod:`clearclip.evaluation.facts`).
        is_main: whether this is the process that reports and records (rank 0).
        started: when, ISO 8601 in UTC.
    """

    classes: list[str]
    scores: Scores
    images: int
    failures: dict[str, str]
    seconds: float
    images_per_second: float
    facts: dict[str, Any]
    is_main: bool = True
    started: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    )

    @property
    def dataset(self) -> str:
        """The benchmark's name."""
        return self.facts["dataset"]["name"]

    @property
    def method(self) -> str:
        """The method's label."""
        return self.facts["method"]["label"]

    @property
    def record(self) -> dict[str, Any]:
        """All of it as plain data, see :mod:`clearclip.results.records`."""
        return {
            "time": self.started,
            "dataset": self.dataset,
            "method": self.method,
            "images": self.images,
            "skipped": len(self.failures),
            **{name: None if value != value else value for name, value in self.scores.summary.items()},
            "seconds": round(self.seconds, 1),
            "images/s": round(self.images_per_second, 2),
            "classes": self.classes,
            "iou": [None if iou != iou else float(iou) for iou in self.scores.iou],
            "fingerprint": digest(self.facts),
            "facts": self.facts,
        }

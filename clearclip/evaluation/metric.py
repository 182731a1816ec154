"""Confusion counts per image, and the scores of their sum. Counts are whole numbers, so that any order and any
number of processes give the identical result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS

from clearclip.errors import UserError
from clearclip.evaluation.journal import Journal


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


def confusion_counts(truth: np.ndarray, prediction: np.ndarray, classes: int, ignore_index: int = 255) -> np.ndarray:
    """Pixels of each pair of true and predicted class.

    Args:
        truth: (H, W) integers below ``classes``, or ``ignore_index``.
        prediction: (H, W) integers below ``classes``.
        ignore_index: the label of pixels that do not count; may be that of a class.

    Returns:
        (classes, classes) int64
    """
    counted = truth != ignore_index
    pairs = truth[counted].astype(np.int64) * classes + prediction[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@METRICS.register_module()
class ConfusionMetric(BaseMetric):
    """Sums per-image confusion counts and keeps them in a journal, from which an evaluation can be resumed.

    Args:
        journal: where counts are kept (:class:`~clearclip.evaluation.journal.Journal`); None keeps them in memory.
        ignore_index: the label of pixels that do not count; default: the dataset's, else 255.
    """

    default_prefix = None

    def __init__(self, journal: Journal | None = None, ignore_index: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.ignore_index = ignore_index
        self.journal = journal
        self.failures: dict[str, str] = {}
        self.scores: Scores | None = None
        self.images = 0

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count one batch: samples with ``pred_sem_seg``, ``gt_sem_seg`` and ``img_path``."""
        classes = len(self.dataset_meta["classes"])
        ignore = self.dataset_meta.get("ignore_index", 255) if self.ignore_index is None else self.ignore_index
        for sample in data_samples:
            prediction = sample["pred_sem_seg"]["data"].squeeze(0).cpu().numpy()
            truth = sample["gt_sem_seg"]["data"].squeeze(0).cpu().numpy()
            if prediction.max(initial=0) >= classes:
                raise UserError(
                    f"the model predicts label {prediction.max()} but the dataset has {classes} classes; "
                    "give as many class names as the dataset has"
                )
            foreign = truth[(truth >= classes) & (truth != ignore)]
            if len(foreign):
                raise UserError(
                    f"the mask of {sample['img_path']} has label {foreign[0]}, beyond the {classes} classes; "
                    "set the dataset's ignore_index"
                )
            counts = confusion_counts(truth, prediction, classes, ignore)
            places = counts.ravel().nonzero()[0]
            record = (sample["img_path"], places.tolist(), counts.ravel()[places].tolist())
            self.results.append(record)
            if self.journal is not None:
                self.journal.add_counts(*record)

    def fail(self, image: str, reason: str) -> None:
        """Note an image that was skipped."""
        self.failures[image] = reason
        if self.journal is not None:
            self.journal.add_failure(image, reason)

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather the counts of all processes, each image once, whichever process had it."""
        earlier = self.journal.finished if self.journal is not None else {}
        earlier_failures = self.journal.failures if self.journal is not None else {}
        records = dict(earlier)
        failures = dict(earlier_failures)
        try:
            parts = all_gather_object((self.results, self.failures))
        except RuntimeError as error:  # what gloo and NCCL raise where the other end is gone
            raise UserError(f"another process died ({error}); nothing was recorded, go on with --resume") from error
        for part, failed in parts:
            records.update({image: (places, counts) for image, places, counts in part})
            failures.update(failed)
        self.failures = failures
        self.images = len(records)
        self.results.clear()
        return self.compute_metrics(list(records.values()))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """aAcc, mIoU and mAcc of (places, counts) per image."""
        if not results:
            raise UserError("no image was left to evaluate; see the images that were skipped")
        classes = len(self.dataset_meta["classes"])
        total = np.zeros(classes * classes, dtype=np.int64)
        for places, counts in results:
            total[places] += counts
        self.scores = Scores(total.reshape(classes, classes))
        return self.scores.summary

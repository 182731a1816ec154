"""Confusion counts per image and method. Counts are whole numbers, so that any order and any number of processes
give the identical result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS

from clearclip.evaluation.journal import Counts, Journal
from clearclip.evaluation.processes import gather
from clearclip.evaluation.scores import Scores, confusion_counts
from clearclip.utils.errors import UserError


@METRICS.register_module()
class ConfusionMetric(BaseMetric):
    """Sums per-image confusion counts, of every method that the segmentor computes, and keeps them in a journal.

    Args:
        on_error: "stop" raises a UserError at the first image that cannot be used, "skip" counts and lists them.
        ignore_index: the label of pixels that do not count; default: the dataset's in ``eval.py``, else 255.
        journal: where counts are kept, from which an evaluation can be resumed; None keeps them in memory.

    Attributes:
        scores: of each method, after :meth:`evaluate`.
        images: how many images were counted.
        failures: path of an image that was skipped → the reason.
    """

    default_prefix = ""  # its scores are not prefixed, as those of MMSegmentation's own metric

    def __init__(
        self, on_error: str = "stop", ignore_index: int | None = None, journal: Journal | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.ignore_index = ignore_index
        self.on_error = on_error
        self.journal = journal
        self.scores: list[Scores] = []
        self.images = 0
        self.failures: dict[str, str] = {}
        self._seen: Counter[str] = Counter()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count one batch: samples with ``pred_sem_seg`` (or ``pred_methods``), ``gt_sem_seg`` and ``img_path``."""
        classes = len(self.dataset_meta["classes"])
        ignore_index = self.dataset_meta.get("ignore_index", 255) if self.ignore_index is None else self.ignore_index
        for sample in data_samples:
            image = sample["img_path"]
            if sample.get("failure") is not None:
                self._fail(image, sample["failure"])
                continue
            predictions = sample.get("pred_methods", sample["pred_sem_seg"])["data"]
            truth = sample["gt_sem_seg"]["data"].squeeze(0).to(predictions.device)
            if predictions.max() >= classes or truth.masked_fill(truth == ignore_index, 0).max() >= classes:
                raise UserError(
                    f"{image}: truth or prediction has labels beyond the dataset's {classes} classes; "
                    "give as many class names as the dataset has, and its ignore_index"
                )
            counts = [confusion_counts(truth, prediction, classes, ignore_index) for prediction in predictions]
            found = []
            for one in torch.stack(counts).cpu().numpy():
                places = one.nonzero()[0]
                found.append((places.tolist(), one[places].tolist()))
            self.results.append((self._key(sample), found))
            if self.journal is not None:
                self.journal.add(self.results[-1][0], found)

    def _key(self, sample: dict) -> int | str:
        """What identifies an image: its index, or in other loops than ``eval.py``'s its path and how often it came."""
        if "index" in sample:
            return sample["index"]
        self._seen[sample["img_path"]] += 1
        return f"{sample['img_path']} {self._seen[sample['img_path']]}"

    def _fail(self, image: str, reason: str) -> None:
        if self.on_error == "stop":
            raise UserError(f"{reason}; or go on without it (--on-error skip)")
        self.failures[image] = reason

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather the counts of all processes, each image once, whichever process had it.

        Returns:
            aAcc, mIoU and mAcc of the first method; with a journal nothing.
        """
        counts: dict[int | str, list[Counts]] = dict(self.journal.finished) if self.journal is not None else {}
        for results, failed in gather((self.results, self.failures)):
            counts.update(dict(results))
            self.failures |= failed
        self.images = len(counts)
        self.results.clear()
        self._seen.clear()
        scores = self.compute_metrics(list(counts.values()))
        # Beside it may run MMSegmentation's IoUMetric, whose scores have the same names; eval.py takes ``scores``.
        return scores if self.journal is None else {}

    def compute_metrics(self, results: list[list[Counts]]) -> dict[str, float]:
        """aAcc, mIoU and mAcc of the first method, from (places, counts) per image and method."""
        if not results:
            raise UserError("no image was left to evaluate; see the images that were skipped")
        classes = len(self.dataset_meta["classes"])
        totals = np.zeros((len(results[0]), classes * classes), dtype=np.int64)
        for image in results:
            for total, (places, counts) in zip(totals, image, strict=True):
                total[places] += np.array(counts, np.int64)  # of whole numbers even where none is counted
        self.scores = [Scores(total.reshape(classes, classes)) for total in totals]
        return self.scores[0].summary

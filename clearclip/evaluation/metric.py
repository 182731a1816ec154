"""Confusion counts per image and method, and the evaluation that is made of them.

Counts are whole numbers, so that any order and any number of processes give the identical result.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS

from clearclip.evaluation.confusion import BatchCounts, count_batch
from clearclip.evaluation.journal import Counts
from clearclip.evaluation.processes import values_of_all_processes
from clearclip.evaluation.scores import Scores
from clearclip.inference import NOT_FINITE_FEATURES
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest


@dataclass
class Evaluation:
    """The scores of one method on a benchmark, and everything that a record keeps of the run.

    Attributes:
        classes: names in label order.
        scores: the scores.
        images: number of images counted, those of earlier sessions included.
        failures: path of an image that was skipped → the reason.
        seconds: of the evaluation loop in this session (text and model loading left out), for all methods together.
        images_per_second: of this session.
        facts: everything that changes the result, as plain data (:mod:`clearclip.evaluation.run_facts`).
        is_main: whether this is the process that reports and records (rank 0).
        not_published_because: why the run fills no published cell, a sentence each; empty where it does.
        started: when the run began, ISO 8601 in UTC; of two runs of one cell a table shows the later one.
    """

    classes: list[str]
    scores: Scores
    images: int
    failures: dict[str, str]
    seconds: float
    images_per_second: float
    facts: dict[str, Any]
    is_main: bool = True
    not_published_because: list[str] = field(default_factory=list)
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
            **dict(zip(self.scores.summary, _plain_scores(list(self.scores.summary.values())), strict=True)),
            "seconds": round(self.seconds, 1),
            "images/s": round(self.images_per_second, 2),
            "classes": self.classes,
            "iou": _plain_scores(self.scores.iou),
            "recall": _plain_scores(self.scores.accuracy),
            "precision": _plain_scores(self.scores.precision),
            "dice": _plain_scores(self.scores.dice),
            "fingerprint": digest(self.facts),
            "not_published_because": self.not_published_because,
            "facts": self.facts,
        }


def _plain_scores(values: np.ndarray | Sequence[float]) -> list[float | None]:
    """Scores as plain data: None where there is none, since JSON has no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


@dataclass(frozen=True)
class _PendingBatch:
    """A batch whose counts were asked for.

    Attributes:
        keys: what identifies each image in the results.
        paths: of each image, to name it in an error.
        counts: of each image.
    """

    keys: list[int | str]
    paths: list[str]
    counts: BatchCounts


@METRICS.register_module()
class ConfusionMetric(BaseMetric):
    """Sums per-image confusion counts, of every method that the segmentor computes.

    Args:
        on_error: "stop" raises a UserError at the first image that cannot be used, "skip" counts and lists them.
        ignore_index: the label of pixels that do not count; default: the dataset's in ``eval.py``, else 255.
        finished: counts of the images of earlier sessions; given by ``eval.py``, which records ``scores``.

    Attributes:
        scores: of each method, after :meth:`evaluate`.
        images: how many images were counted.
        failures: path of an image that was skipped → the reason.
    """

    default_prefix = ""  # its scores are not prefixed, as those of MMSegmentation's own metric

    def __init__(
        self,
        on_error: str = "stop",
        ignore_index: int | None = None,
        finished: Mapping[int, list[Counts]] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.ignore_index = ignore_index
        self.on_error = on_error
        self.finished = finished
        self.scores: list[Scores] = []
        self.images = 0
        self.failures: dict[str, str] = {}
        self._seen: Counter[str] = Counter()
        #: The batch before, which a GPU counts while the host prepares the next one.
        self._pending: _PendingBatch | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count one batch: samples with ``pred_sem_seg`` (or ``pred_methods``), ``gt_sem_seg`` and ``img_path``.

        On a GPU the counts of a batch are added to ``results`` when the next one is processed, or by :meth:`finish`.

        Raises:
            UserError: an image of this batch, or of the one before, that cannot be used.
        """
        classes = len(self.dataset_meta["classes"])
        ignore_index = self.dataset_meta.get("ignore_index", 255) if self.ignore_index is None else self.ignore_index
        usable = []
        for sample in data_samples:
            image = sample["img_path"]
            # The dataset hands on why it could not read an image, since an error in a worker would end the loader.
            if sample.get("failure") is not None:
                if self.on_error == "stop":
                    raise UserError(f"{sample['failure']}; or go on without it (--on-error skip)")
                self.failures[image] = sample["failure"]
                continue
            usable.append(sample)
        truths = [sample["gt_sem_seg"]["data"].squeeze(0) for sample in usable]
        predictions = [sample.get("pred_methods", sample["pred_sem_seg"])["data"] for sample in usable]
        counts = count_batch(truths, predictions, classes, ignore_index)
        # The GPU has its next work by now, so that it goes on while the host waits for the batch before.
        self.finish()
        self._pending = _PendingBatch(
            keys=[self._key(sample) for sample in usable],
            paths=[sample["img_path"] for sample in usable],
            counts=counts,
        )
        if counts.is_complete:
            self.finish()

    def finish(self) -> None:
        """Add the counts of the last batch to ``results``, waiting for the GPU where it still computes them.

        Raises:
            UserError: an image with labels that are no classes, or with features that are not finite.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        classes = len(self.dataset_meta["classes"])
        for key, path, counts in zip(pending.keys, pending.paths, pending.counts.read(), strict=True):
            if not counts.is_finite:
                raise UserError(f"{path}: {NOT_FINITE_FEATURES}")
            if counts.has_bad_labels:
                raise UserError(
                    f"{path}: truth or prediction has labels beyond the dataset's {classes} classes; "
                    "give as many class names as the dataset has, and its ignore_index"
                )
            counts_by_method = []
            for counts_of_method in counts.by_method.numpy():
                # An image shows few of the classes: of 171 × 171 cells a handful is sent and journaled.
                cells = counts_of_method.nonzero()[0]
                counts_by_method.append((cells.tolist(), counts_of_method[cells].tolist()))
            self.results.append((key, counts_by_method))

    def _key(self, sample: dict) -> int | str:
        """What identifies an image: its index, or in other loops than ``eval.py``'s its path and how often it came."""
        if "index" in sample:
            return sample["index"]
        self._seen[sample["img_path"]] += 1
        return f"{sample['img_path']} {self._seen[sample['img_path']]}"

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather the counts of all processes, each image once, whichever process had it.

        Returns:
            aAcc, mIoU and mAcc of the first method; nothing under ``eval.py``, which gives ``finished`` and reads
            ``scores``.
        """
        self.finish()
        # By image, since the sampler gives some images to two processes where their number cannot be divided.
        counts_by_image: dict[int | str, list[Counts]] = dict((self.finished or {}).items())
        for results, failures in values_of_all_processes((self.results, self.failures)):
            counts_by_image.update(dict(results))
            self.failures |= failures
        self.images = len(counts_by_image)
        self.results.clear()
        self._seen.clear()
        scores = self.compute_metrics(list(counts_by_image.values()))
        # Beside it may run MMSegmentation's IoUMetric, whose scores have the same names; eval.py takes ``scores``.
        return scores if self.finished is None else {}

    def compute_metrics(self, results: list[list[Counts]]) -> dict[str, float]:
        """aAcc, mIoU and mAcc of the first method, from (cells, counts) per image and method."""
        if not results:
            raise UserError("no image was left to evaluate; see the images that were skipped")
        classes = len(self.dataset_meta["classes"])
        totals = np.zeros((len(results[0]), classes * classes), dtype=np.int64)
        for counts_by_method in results:
            for total, (cells, counts) in zip(totals, counts_by_method, strict=True):
                total[cells] += np.array(counts, np.int64)  # of whole numbers even where none is counted
        self.scores = [Scores(total.reshape(classes, classes)) for total in totals]
        return self.scores[0].summary

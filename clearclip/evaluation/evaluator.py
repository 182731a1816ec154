"""The metrics of an evaluation, resumed together: ours, and those that a config adds.

MMEngine gathers what a metric has counted in this process only. After an interruption a metric of the config would
score the images of the last session and call it the whole. Here each metric sees one image at a time, and what it adds
to its results for this image goes into the journal.
"""

from __future__ import annotations

import base64
import io
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine import dist
from mmengine.evaluator import BaseMetric, Evaluator

from clearclip.evaluation.journal import Journal
from clearclip.evaluation.metric import ConfusionMetric
from clearclip.evaluation.processes import on_main_process, values_of_all_processes
from clearclip.utils.errors import UserError

#: Images of a session after which a metric is no longer watched for what it keeps beside its results.
WATCHED_IMAGES = 3


class JournaledEvaluator(Evaluator):
    """Our metric and others; what they count is kept in a journal, image by image.

    Args:
        confusion: our metric.
        other_metrics: MMEngine metrics of the config, or their configs.
        journal: where the counts of each image go, and those of earlier sessions come from.

    Raises:
        UserError: an earlier session could not store what a metric had counted.
    """

    def __init__(self, confusion: ConfusionMetric, other_metrics: Sequence[dict | BaseMetric], journal: Journal):
        super().__init__([confusion, *other_metrics])
        self.confusion = confusion
        self.other_metrics = self.metrics[1:]
        self.journal = journal
        # Image → for each other metric what it added to its results: of this process's images, and on the main
        # process of those of earlier sessions, which would else be counted once by each process.
        self._results: dict[int, list[list[Any]]] = {}
        # Image → its texts for the journal, until our metric's counts of it are there.
        self._texts_by_image: dict[int, list[str | None]] = {}
        self._written_images = 0
        self._watched_images = 0
        self._not_storable: set[BaseMetric] = set()
        self._restore()

    def _restore(self) -> None:
        """Take what earlier sessions counted for the other metrics."""
        for image, texts in self.journal.metric_results.items():
            if len(texts) != len(self.other_metrics) or None in texts:
                names = " and ".join(type(metric).__name__ for metric in self.other_metrics)
                raise UserError(
                    f"what {names} counted before the interruption could not be stored; start again without "
                    "--resume (eval_all.py: with --force), or leave the metric out of test_evaluator"
                )
            if dist.get_rank() == 0:
                self._results[image] = [decode_results(text) for text in texts if text is not None]

    def process(self, data_samples: Sequence[Any], data_batch: Any = None) -> None:
        """Count a batch, by every metric, and note in the journal each image whose counts are there.

        A GPU counts one batch while the next is prepared: its images are noted then, or by :meth:`finish`.

        Args:
            data_samples: what the segmentor returned; images that were skipped are shown to our metric only.
            data_batch: ``inputs`` and ``data_samples``, lists.
        """
        samples = [sample.to_dict() for sample in data_samples]
        self.confusion.process(data_batch, samples)
        for position, sample in enumerate(samples):
            if sample.get("failure") is not None:
                continue
            image = sample["index"]
            # Metrics see one image at a time, so that what they add is known to be that image's.
            image_batch = {name: [values[position]] for name, values in (data_batch or {}).items()}
            results = [self._process_image(metric, image_batch, sample) for metric in self.other_metrics]
            self._results[image] = results
            texts: list[str | None] = []
            for metric, metric_results in zip(self.other_metrics, results, strict=True):
                texts.append(None if metric in self._not_storable else encode_results(metric_results))
            self._texts_by_image[image] = texts
            self._watched_images += 1
        self._write_counted_images()

    def finish(self) -> None:
        """Note the images of the last batch, waiting for the GPU where it still counts them."""
        self.confusion.finish()
        self._write_counted_images()

    def _write_counted_images(self) -> None:
        """Note the images in the journal that all metrics have counted since the last time."""
        for image, counts in self.confusion.results[self._written_images :]:
            self._written_images += 1
            # An image at which another metric failed has no texts, and is not finished.
            if image in self._texts_by_image:
                self.journal.add(image, counts, self._texts_by_image.pop(image))

    def _process_image(self, metric: BaseMetric, image_batch: dict[str, list], sample: dict[str, Any]) -> list[Any]:
        """What a metric adds to its results for one image."""
        first_new = len(metric.results)
        # Comparing states costs time, and a metric that counts beside its results does so from the first image on.
        if self._watched_images >= WATCHED_IMAGES:
            metric.process(image_batch, [sample])
            return list(metric.results[first_new:])
        state_before = _metric_state(metric)
        metric.process(image_batch, [sample])
        results = list(metric.results[first_new:])
        if not results or _metric_state(metric) != state_before:
            self._not_storable.add(metric)
        return results

    def evaluate(self, size: int) -> dict[str, float]:
        """The scores of all metrics, over all images of all processes and sessions.

        Returns:
            The scores of the other metrics by name; ours are in ``confusion.scores``.
        """
        self.finish()
        self.confusion.evaluate(size)
        scores: dict[str, float] = {}
        if not self.other_metrics:
            return scores
        for results_of_process in values_of_all_processes(self._results):
            self._results.update(results_of_process)
        for position, metric in enumerate(self.other_metrics):
            results: list[Any] = []
            # In the order of the images, so that sums of floats do not depend on sessions and processes.
            for image in sorted(self._results):
                results += self._results[image][position]
            for name, value in self._scores_of_metric(metric, results).items():
                if name in scores:
                    raise UserError(f"two metrics of test_evaluator have a score {name}; give one of them a prefix")
                scores[name] = value
        self._results.clear()
        return scores

    def _scores_of_metric(self, metric: BaseMetric, results: list[Any]) -> dict[str, float]:
        """A metric's scores of all images, which the main process computes for all."""
        # What such a metric counted is in the metric itself, and MMEngine's way is the only one there is.
        if metric in self._not_storable or type(metric).evaluate is not BaseMetric.evaluate:
            return metric.evaluate(len(results))
        metric.results.clear()
        scores = on_main_process(lambda: metric.compute_metrics(results))
        prefix = f"{metric.prefix}/" if metric.prefix else ""
        return {f"{prefix}{name}": value for name, value in scores.items()}


def _metric_state(metric: BaseMetric) -> bytes | None:
    """What a metric holds beside its results, to see whether it changes; None where it cannot be compared."""
    attributes = {name: value for name, value in vars(metric).items() if name != "results"}
    try:
        return pickle.dumps(attributes)
    except Exception:  # whatever the objects of somebody's own metric raise
        return None


def encode_results(results: list[Any]) -> str | None:
    """A metric's results of one image as text; None where they are no numbers, texts, tensors or containers of such.

    Names of files are refused as well: by the time of a resumption the files may be gone.
    """
    if any(os.path.isfile(text) for text in _texts(results)):  # False for a text that is too long
        return None
    buffer = io.BytesIO()
    try:
        # Read back at once: what could be written may be of a class that is refused when it is read.
        torch.save(results, buffer)
        text = base64.b64encode(buffer.getvalue()).decode()
        decode_results(text)
    except Exception:  # of pickle and PyTorch, for objects of any class
        return None
    return text


def decode_results(text: str) -> list[Any]:
    """The results that :func:`encode_results` made a text of; no code is executed."""
    return torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True, map_location="cpu")


def _texts(value: Any) -> Iterator[str]:
    """Every text in nested lists, tuples and dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)

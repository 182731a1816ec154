"""What the metric cannot count is refused; and when it reads what a GPU has counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from colour_model import config, ours
from mmengine.hooks import Hook

from clearclip import UserError
from clearclip.evaluation import ConfusionMetric, metric
from clearclip.evaluation.confusion import BatchCounts
from clearclip.evaluation.evaluator import Journal
from clearclip.evaluation.run import evaluate

#: The fixtures ``clip``, a model that labels pixels by their colour, and ``data``.
pytest_plugins = ["colour_model"]


def test_more_classes_than_can_be_compared(data, clip, tmp_path):
    words = [f"class {k}" for k in range(70_000)]
    with pytest.raises(UserError, match="has 70,000 classes; at most 10,000"):
        ours(config(data, type="BaseSegDataset", metainfo=dict(classes=words)), tmp_path, clip)


def sample_of(label: int, name: str) -> dict:
    """A sample of four pixels of class 0 that are predicted as one label."""
    return {
        "pred_sem_seg": {"data": torch.full((1, 2, 2), label)},
        "gt_sem_seg": {"data": torch.zeros(1, 2, 2, dtype=torch.long)},
        "img_path": name,
    }


def test_labels_beyond_the_classes_are_refused():
    confusion_metric = ConfusionMetric()
    confusion_metric.dataset_meta = {"classes": ["a", "b"]}
    with pytest.raises(UserError, match="2 classes"):
        confusion_metric.process({}, [sample_of(2, "x")])


@pytest.fixture
def gpu_events(monkeypatch):
    """What happens in an evaluation, in order, with counts that are read late, as those of a GPU."""
    events: list[str] = []
    count_batch, read, add = metric.count_batch, BatchCounts.read, Journal.add

    def queue(*arguments):
        events.append("queue")
        return count_batch(*arguments)

    def note_read(counts):
        events.append("read")
        return read(counts)

    def note_image(journal, image, *arguments):
        events.append(f"image {image}")
        add(journal, image, *arguments)

    monkeypatch.setattr(metric, "count_batch", queue)
    monkeypatch.setattr(BatchCounts, "read", note_read)
    monkeypatch.setattr(BatchCounts, "is_complete", property(lambda counts: False))
    monkeypatch.setattr(Journal, "add", note_image)
    return events


#: Five images in batches of two: each batch is queued before the one before it is read.
ALL_FIVE = "queue, queue, read, image 0, image 1, queue, read, image 2, image 3, read, image 4"


@pytest.mark.parametrize("beside", [[], [dict(type="IoUMetric")]], ids=["alone", "IoUMetric beside"])
def test_counts_are_read_after_the_next_batch_is_queued(beside, data, clip, tmp_path, request):
    cfg = config(data, loader=dict(batch_size=2))
    cfg.test_evaluator = beside
    (at_once,) = evaluate(cfg, tmp_path / "at once", model=clip)
    events = request.getfixturevalue("gpu_events")
    (later,) = evaluate(cfg, tmp_path / "later", model=clip)
    assert ", ".join(events) == ALL_FIVE
    np.testing.assert_array_equal(later.scores.confusion, at_once.scores.confusion)


class StopAfterTwoBatches(Hook):
    """Ends an evaluation as Ctrl-C would."""

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == 1:
            raise KeyboardInterrupt


def test_the_last_batch_before_an_interruption_is_noted(data, clip, tmp_path, gpu_events):
    cfg = config(data, loader=dict(batch_size=2))
    with pytest.raises(KeyboardInterrupt):
        evaluate(cfg, tmp_path, model=clip, hooks=[StopAfterTwoBatches()])
    assert ", ".join(gpu_events) == "queue, queue, read, image 0, image 1, read, image 2, image 3"


def test_an_image_of_the_batch_before_is_named(gpu_events):
    confusion_metric = ConfusionMetric()
    confusion_metric.dataset_meta = {"classes": ["a", "b"]}
    for name, label in (("good", 1), ("bad", 2), ("also good", 1)):
        sample = sample_of(label, name)
        if name != "also good":
            confusion_metric.process({}, [sample])
            continue
        with pytest.raises(UserError, match=r"^bad: truth or prediction has labels beyond"):
            confusion_metric.process({}, [sample])
    assert [key for key, _ in confusion_metric.results] == ["good 1"]


def test_a_runner_reads_the_last_batch(gpu_events):
    """MMEngine's own evaluator knows nothing of counts that are to be read."""
    confusion_metric = ConfusionMetric()
    confusion_metric.dataset_meta = {"classes": ["a", "b"]}
    confusion_metric.process({}, [sample_of(0, "x")])
    assert confusion_metric.results == []
    assert confusion_metric.evaluate(1)["aAcc"] == 100

"""What the metric cannot count is refused."""

from __future__ import annotations

import pytest
import torch
from colour_model import config, ours

from clearclip import UserError
from clearclip.evaluation import ConfusionMetric

#: The fixtures ``clip``, a model that labels pixels by their colour, and ``data``.
pytest_plugins = ["colour_model"]


def test_more_classes_than_can_be_compared(data, clip, tmp_path):
    words = [f"class {k}" for k in range(70_000)]
    with pytest.raises(UserError, match="has 70,000 classes; at most 10,000"):
        ours(config(data, type="BaseSegDataset", metainfo=dict(classes=words)), tmp_path, clip)


def test_labels_beyond_the_classes_are_refused():
    metric = ConfusionMetric()
    metric.dataset_meta = {"classes": ["a", "b"]}
    sample = {
        "pred_sem_seg": {"data": torch.full((1, 2, 2), 2)},
        "gt_sem_seg": {"data": torch.zeros(1, 2, 2, dtype=torch.long)},
        "img_path": "x",
    }
    with pytest.raises(UserError, match="2 classes"):
        metric.process({}, [sample])

"""The ground truth of drawn scenes, and scores by a loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip.commands.model_arguments import SCENES
from clearclip.commands.scene_truth import image_miou, scene_truth
from clearclip.miniature import CLASSES


def test_a_scene_has_its_label_map_and_others_have_none(tmp_path: Path) -> None:
    truth = scene_truth(SCENES[0], CLASSES)
    assert truth.shape == Image.open(SCENES[0]).size[::-1] and truth.max() < len(CLASSES)
    assert scene_truth(SCENES[0], ["sky", "tree"]) is None
    photograph = tmp_path / SCENES[0].name
    Image.new("RGB", (128, 128)).save(photograph)
    assert scene_truth(photograph, CLASSES) is None


def test_the_score_is_that_of_a_loop_over_classes() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (20, 30)).astype(np.uint8)
    labels = np.where(rng.random(truth.shape) < 0.6, truth, 5).astype(np.uint8)
    scores = []
    for label in range(len(CLASSES)):
        union = ((truth == label) | (labels == label)).sum()
        if union:
            scores.append(((truth == label) & (labels == label)).sum() / union)
    assert image_miou(labels, truth) == pytest.approx(100 * np.mean(scores))

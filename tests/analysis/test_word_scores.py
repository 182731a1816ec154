"""Counts of a study against loops over pixels."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from clearclip.analysis.word_scores import MeanIoU, ThresholdCounts, class_iou, confusion_with_misses

CLASSES, IGNORED = 4, 255
THRESHOLDS = np.array([0.0, 0.2, 0.35, 0.5, 0.9, 1.0])


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth with ignored pixels, labels, and their probabilities, some of them exactly a threshold."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, CLASSES, (30, 20))
    labels = np.where(generator.random((30, 20)) < 0.6, truth, generator.integers(0, CLASSES, (30, 20)))
    probability = generator.random((30, 20)).astype(np.float32)
    probability[::7] = generator.choice(THRESHOLDS.astype(np.float32), (5, 20))
    truth[3:5] = IGNORED
    return truth, labels, probability


def loop_iou(truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """IoU by the definition, class by class."""
    counted = truth != IGNORED
    values = []
    for number in range(CLASSES):
        is_true, is_labelled = (truth == number) & counted, (labels == number) & counted
        union = (is_true | is_labelled).sum()
        values.append(100 * (is_true & is_labelled).sum() / union if union else np.nan)
    return np.array(values)


def test_distractors_count_as_misses(scene):
    truth, labels, _ = scene
    labels = labels.copy()
    labels[::4] += 10  # classes of another dataset
    counts = confusion_with_misses(torch.tensor(truth), torch.tensor(labels), CLASSES, IGNORED)
    assert counts.shape == (CLASSES, CLASSES + 1)
    assert counts.sum() == (truth != IGNORED).sum()
    np.testing.assert_allclose(class_iou(counts), loop_iou(truth, labels))


def test_the_curve_is_that_of_separate_thresholds(scene):
    truth, labels, probability = scene
    counts = ThresholdCounts(CLASSES, THRESHOLDS)
    counts.add(torch.tensor(truth[:11]), torch.tensor(labels[:11]), torch.tensor(probability[:11]), IGNORED)
    counts.add(torch.tensor(truth[11:]), torch.tensor(labels[11:]), torch.tensor(probability[11:]), IGNORED)
    for threshold, iou in zip(THRESHOLDS, counts.iou_by_threshold(), strict=True):
        thresholded = torch.tensor(labels).masked_fill(torch.tensor(probability) < threshold, 0).numpy()
        np.testing.assert_allclose(iou, loop_iou(truth, thresholded))


def test_the_oracle_is_what_trying_all_thresholds_finds(scene):
    truth, labels, probability = scene
    few = THRESHOLDS[:4]
    counts = ThresholdCounts(CLASSES, few)
    counts.add(torch.tensor(truth), torch.tensor(labels), torch.tensor(probability), IGNORED)
    best = np.zeros(CLASSES)
    for chosen in product(few, repeat=CLASSES - 1):
        by_class = torch.tensor([0.0, *chosen], dtype=torch.float32)
        is_low = torch.tensor(probability) < by_class[torch.tensor(labels)]
        best = np.maximum(best, loop_iou(truth, torch.tensor(labels).masked_fill(is_low, 0).numpy()))
    assert counts.oracle().occurring == pytest.approx(best.mean())


def test_both_means():
    iou = np.array([50.0, np.nan, 100.0, np.nan])
    assert MeanIoU.of(iou) == MeanIoU(occurring=75.0, all_classes=37.5)
    assert np.isnan(MeanIoU.of(np.array([np.nan])).occurring)

"""Scores of classes: by NumPy from pixels, and by MMSegmentation's IoUMetric."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from PIL import Image

from clearclip.commands.eval import eval_command
from clearclip.evaluation.confusion import confusion_counts
from clearclip.evaluation.scores import Scores
from clearclip.results.score_files import write_score_files

CONFIG = Path(__file__).resolve().parents[2] / "config" / "cfg_miniature.py"


def drawn(classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction; the last class is never in the truth, the one before never predicted, 255 is ignored."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes - 1, (40, 50))
    prediction = np.where(rng.random((40, 50)) < 0.5, truth, rng.integers(0, classes, (40, 50)))
    prediction[prediction == classes - 2] = 0
    truth[rng.random((40, 50)) < 0.1] = 255
    return truth, prediction


def scores_of(truth: np.ndarray, prediction: np.ndarray, classes: int) -> Scores:
    counts = confusion_counts(torch.from_numpy(truth), torch.from_numpy(prediction), classes)
    return Scores(counts.view(classes, classes).numpy())


@pytest.mark.parametrize("seed", range(3))
def test_by_sets_of_pixels(seed):
    classes = 6
    truth, prediction = drawn(classes, seed)
    scores = scores_of(truth, prediction, classes)
    is_counted = truth != 255
    for label in range(classes):
        is_true, is_predicted = (truth == label) & is_counted, (prediction == label) & is_counted
        common = (is_true & is_predicted).sum()
        wanted = {
            "iou": (common, (is_true | is_predicted).sum()),
            "accuracy": (common, is_true.sum()),
            "precision": (common, is_predicted.sum()),
            "dice": (2 * common, is_true.sum() + is_predicted.sum()),
        }
        for name, (numerator, denominator) in wanted.items():
            value = getattr(scores, name)[label]
            if denominator:
                assert value == pytest.approx(100 * numerator / denominator, rel=1e-12)
            else:
                assert np.isnan(value)
    assert np.isnan(scores.accuracy[-1]) and np.isnan(scores.precision[-2])


def test_by_mmsegmentations_metric():
    """Its areas, and its means, which it rounds to two digits."""
    classes = 6
    truth, prediction = drawn(classes, 0)
    scores = scores_of(truth, prediction, classes)
    areas = IoUMetric.intersect_and_union(torch.from_numpy(prediction), torch.from_numpy(truth), classes, 255)
    metrics = IoUMetric.total_area_to_metrics(*areas, metrics=["mIoU", "mDice", "mFscore"])
    for ours, theirs in (("iou", "IoU"), ("dice", "Dice"), ("precision", "Precision"), ("accuracy", "Recall")):
        np.testing.assert_allclose(getattr(scores, ours), 100 * np.asarray(metrics[theirs]), rtol=1e-6)
    is_defined = ~np.isnan(metrics["Fscore"])
    np.testing.assert_allclose(scores.dice[is_defined], 100 * np.asarray(metrics["Fscore"])[is_defined], rtol=1e-6)
    assert scores.further_means["mDice"] == pytest.approx(100 * np.nanmean(metrics["Dice"]), rel=1e-6)
    assert scores.further_means["mPrecision"] == pytest.approx(100 * np.nanmean(metrics["Precision"]), rel=1e-6)


def test_files_of_names_that_are_anything(tmp_path):
    """A formula stays a text, what is not defined an empty cell, and the picture has every class."""
    classes = ["=1+1", "sky, tree", "天空", "never"]
    confusion = np.diag([5, 4, 3, 0]) + np.eye(4, k=1, dtype=int)
    confusion[3] = 0
    scores = Scores(confusion)
    paths = write_score_files(tmp_path / "new", "run", classes, confusion, scores.columns, "a title")
    matrix, by_class = (list(csv.reader(path.open(encoding="utf-8"))) for path in paths[:2])
    assert matrix[0][1:] == ["'=1+1", "sky, tree", "天空", "never"] == [row[0] for row in matrix[1:]]
    np.testing.assert_array_equal([[int(cell) for cell in row[1:]] for row in matrix[1:]], confusion)
    assert by_class[0][0] == "class" and by_class[4][0] == "never"
    for column, heading in enumerate(by_class[0][1:], start=1):
        for row, value in zip(by_class[1:], scores.columns[heading], strict=True):
            assert row[column] == "" if np.isnan(value) else float(row[column]) == value
    with Image.open(paths[2]) as picture:
        assert picture.format == "PNG" and min(picture.size) > 300


def test_an_evaluation_writes_them(tmp_path, quick_name, capsys):
    """For each method, without computing anything again where all is finished."""
    arguments = ["--config", str(CONFIG), "--workdir", str(tmp_path / "work"), "--limit", "2", "--device", "cpu"]
    arguments += ["--results", str(tmp_path / "results.xlsx"), "--workers", "0", "--methods", "CLIP", "ClearCLIP"]
    options = ["--cfg-options", f"model.model_name={quick_name}", "model.clip_type=None", "model.vit_type=None"]
    assert eval_command([*arguments, *options]) == 0
    assert eval_command([*arguments, "--resume", "--confusion", str(tmp_path / "scores"), *options]) == 0
    assert "resuming: 2 images" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "scores").iterdir())
    assert names == [
        f"miniature_{method}_{kind}"
        for method in ("CLIP", "ClearCLIP")
        for kind in ("classes.csv", "confusion.csv", "confusion.png")
    ]


def test_scores_by_hand():
    scores = Scores(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    np.testing.assert_allclose(scores.iou[:2], [100 * 3 / 6, 100 * 4 / 7])
    assert np.isnan(scores.iou[2])
    assert scores.summary["aAcc"] == pytest.approx(70)
    assert scores.summary["mIoU"] == pytest.approx((50 + 400 / 7) / 2)
    assert scores.summary["mAcc"] == pytest.approx((75 + 400 / 6) / 2)


def test_scores_are_mmsegmentations():
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(4):
        truth, prediction = rng.integers(0, 5, (2, 30, 40))
        truth[rng.random((30, 40)) < 0.1] = 255
        samples.append((truth, prediction))
    theirs = IoUMetric(iou_metrics=["mIoU"])
    theirs.dataset_meta = {"classes": list("abcde")}
    theirs.process(
        {},
        [
            {"pred_sem_seg": {"data": torch.tensor(p)[None]}, "gt_sem_seg": {"data": torch.tensor(t)[None]}}
            for t, p in samples
        ],
    )
    total = sum(confusion_counts(torch.tensor(t), torch.tensor(p), 5) for t, p in samples).numpy().reshape(5, 5)
    wanted = theirs.compute_metrics(theirs.results)
    for name, value in Scores(total).summary.items():
        assert value == pytest.approx(wanted[name], abs=0.006)

"""One pass with all words and thresholds against MMEngine's runner, a run for each."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from clearclip.analysis.word_study import WordStudy, choose_word_sets, study_words
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import CONFIGS, class_words, load_config
from clearclip.evaluation.run import evaluate
from clearclip.methods import build_method
from clearclip.model import ClearCLIP
from clearclip.text.words import ClassWords

SCENES = 4
METHODS = ["CLIP", "ClearCLIP", "NACLIP + RCS + SFR", "GEM"]
#: A study counts with every kind of stage between the scores and the labels.
POST_PROCESSING = {"model.post": "tlp", "model.tlp_grid": 16}


@pytest.fixture(scope="module")
def model() -> ClearCLIP:
    return ClearCLIP.from_pretrained("miniature")


@pytest.fixture(scope="module")
def study(model: ClearCLIP) -> WordStudy:
    return run_study(model, {"model.prob_thd": 0.25, **POST_PROCESSING})


def run_study(model: ClearCLIP, overrides: dict) -> WordStudy:
    cfg = load_config("cfg_miniature.py", overrides)
    dataset = CheckedDataset(cfg.test_dataloader.dataset, SCENES)
    words = class_words(cfg)
    synonyms = ClassWords.read(CONFIGS / "cls_miniature_synonyms.txt")
    other_words = ClassWords.read(CONFIGS / "cls_voc20.txt")
    word_sets = choose_word_sets(words, dataset.metainfo["classes"], synonyms, 2, other_words, 5)
    methods = [build_method(name) for name in METHODS]
    return study_words(
        cfg, dataset, model, methods, word_sets, dataset_name="miniature", logit_scales=[20], batch_size=3
    )


def separate_run(folder: Path, model: ClearCLIP, methods: list[str], overrides: dict) -> list[np.ndarray]:
    """Confusion matrices of a run by the evaluation's own path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluations = evaluate(
            "cfg_miniature.py", folder, methods=methods, model=model, overrides=overrides, limit=SCENES, device="cpu"
        )
    return [evaluation.scores.confusion for evaluation in evaluations]


def test_every_word_set_counts_what_a_run_of_its_own_counts(study: WordStudy, model: ClearCLIP, tmp_path: Path):
    for word_set in study.word_sets:
        if word_set.kind == "distractors":  # a run refuses words that are no class of the dataset
            continue
        names = [" | ".join(words) for words in word_set.words.classes]
        overrides = {"model.prob_thd": 0.25, **POST_PROCESSING, "model.name_path": None, "model.class_names": names}
        runs = separate_run(tmp_path / word_set.name, model, METHODS, overrides)
        for method, confusion in zip(METHODS, runs, strict=True):
            counts = study.confusion[build_method(method).label, word_set.name]
            np.testing.assert_array_equal(counts[:, :-1], confusion)
            assert not counts[:, -1].any()


def test_the_curve_is_that_of_runs_with_each_threshold(study: WordStudy, model: ClearCLIP, tmp_path: Path):
    for number, threshold in enumerate([0.0, 0.03, 0.1, 0.15, 0.2, 0.25, 0.3, 0.42, 0.5, 0.66, 0.8, 0.99]):
        overrides = {"model.prob_thd": threshold, **POST_PROCESSING}
        (confusion,) = separate_run(tmp_path / str(number), model, ["ClearCLIP"], overrides)
        counts = study.threshold_counts["ClearCLIP", 50.0]
        (position,) = np.flatnonzero(counts.thresholds == threshold)
        hits = np.diag(confusion)
        with np.errstate(invalid="ignore"):
            iou = 100 * hits / (confusion.sum(0) + confusion.sum(1) - hits)
        np.testing.assert_array_equal(counts.iou_by_threshold()[position], iou)


def test_another_scale_is_a_run_with_that_scale(study: WordStudy, model: ClearCLIP, tmp_path: Path):
    overrides = {"model.prob_thd": 0.25, "model.logit_scale": 20, **POST_PROCESSING}
    (confusion,) = separate_run(tmp_path, model, ["ClearCLIP"], overrides)
    counts = study.threshold_counts["ClearCLIP", 20]
    (position,) = np.flatnonzero(counts.thresholds == 0.25)
    hits = np.diag(confusion)
    with np.errstate(invalid="ignore"):
        iou = 100 * hits / (confusion.sum(0) + confusion.sum(1) - hits)
    np.testing.assert_array_equal(counts.iou_by_threshold()[position], iou)


def test_ranks_and_both_means_are_of_the_counts(study: WordStudy):
    scores = {method: study.mean_iou(method, "plain").occurring for method in study.methods}
    best = max(scores, key=scores.__getitem__)
    assert study.rank(best, "plain") == 1
    assert sorted(study.rank(method, "plain") for method in study.methods)[-1] <= len(study.methods)
    for method in study.methods:
        mean = study.mean_iou(method, "published")
        assert mean.all_classes <= mean.occurring
        assert study.threshold_counts[method, 50.0].oracle().occurring >= max(
            mean.occurring for mean in study.threshold_counts[method, 50.0].mean_by_threshold()
        )

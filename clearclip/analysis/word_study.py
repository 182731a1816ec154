"""What do the class words and the threshold do to a method's mIoU? All trials in one pass over the images.

Audits of this field found that the class words move mIoU more than most methods do, and that the order of methods
changes with them. Here every image is encoded once; each method's features are compared with every set of words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmseg.structures import SegDataSample
from torch import Tensor

from clearclip.analysis.word_scores import MeanIoU, ThresholdCounts, class_iou, confusion_with_misses
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import explaining_errors, model_settings
from clearclip.evaluation.mmengine_runner import build_loader
from clearclip.evaluation.segmentor import ImagePreprocessor
from clearclip.methods import Method
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.text import TextFeatures
from clearclip.text.word_sets import PUBLISHED, WordSet, plain_words, published_words, synonym_choice, with_distractors
from clearclip.text.words import ClassWords
from clearclip.utils.errors import UserError
from clearclip.windows import Readout, ScoreMap

#: Thresholds of the curve. The published ones are among them.
THRESHOLDS = np.round(np.linspace(0, 1, 101), 2)


@dataclass
class WordStudy:
    """The counts of all trials on one dataset.

    Attributes:
        dataset: its name.
        class_names: the dataset's classes, in label order.
        word_sets: the trials.
        methods: labels of the methods.
        prob_thd: of the protocol.
        confusion: (method, name of a word set) → (classes, classes + 1) int64, see :func:`confusion_with_misses`.
        threshold_counts: (method, logit scale) → counts for the curve, with the published words.
        images: how many were counted.
        failures: path of an image that was skipped → why.
    """

    dataset: str
    class_names: Sequence[str]
    word_sets: Sequence[WordSet]
    methods: Sequence[str]
    prob_thd: float
    confusion: dict[tuple[str, str], np.ndarray]
    threshold_counts: dict[tuple[str, float], ThresholdCounts]
    images: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def mean_iou(self, method: str, word_set: str) -> MeanIoU:
        """mIoU of a method with a set of words."""
        return MeanIoU.of(class_iou(self.confusion[method, word_set]))

    def rank(self, method: str, word_set: str) -> int:
        """The place of a method among all, from 1, by mIoU with these words. Equal methods share a place."""
        method_score = self.mean_iou(method, word_set).occurring
        scores = [self.mean_iou(label, word_set).occurring for label in self.methods]
        return 1 + sum(score > method_score for score in scores)

    @property
    def kinds(self) -> list[str]:
        """The kinds of word sets, in order."""
        return list(dict.fromkeys(word_set.kind for word_set in self.word_sets))

    def sets_of_kind(self, words_kind: str) -> list[str]:
        """The names of the sets of words of a kind, such as the draws of synonyms."""
        return [word_set.name for word_set in self.word_sets if word_set.kind == words_kind]


def choose_word_sets(
    words: ClassWords,
    dataset_classes: Sequence[str],
    synonyms: ClassWords,
    draws: int,
    distractor_words: ClassWords | None,
    distractors: int,
) -> list[WordSet]:
    """The published words, the plain ones, some draws of synonyms, and distractors.

    Args:
        words: of the names file.
        dataset_classes: the dataset's own names of the classes.
        synonyms: the same classes with the words to draw from; the names file itself, or another with more.
        draws: how many times to draw, with seeds 1, 2, ….
        distractor_words: another dataset's, None for no distractors.
        distractors: how many of its classes to add.

    Raises:
        UserError: the synonyms are of other classes, or there are too few distractors.
    """
    if len(synonyms) != len(words):
        raise UserError(
            f"the file of synonyms has {len(synonyms)} classes, the names file {len(words)}; give one line a class"
        )
    word_sets = [published_words(words), plain_words(words, dataset_classes)]
    word_sets += [synonym_choice(synonyms, seed) for seed in range(1, draws + 1)]
    if distractor_words is not None and distractors:
        word_sets.append(with_distractors(words, distractor_words, distractors, seed=1))
    return word_sets


def study_words(
    cfg: Config,
    dataset: CheckedDataset,
    model: ClearCLIP,
    methods: Sequence[Method],
    word_sets: Sequence[WordSet],
    *,
    dataset_name: str,
    logit_scales: Sequence[float] = (),
    batch_size: int | None = None,
    workers: int | None = None,
    on_error: str = "stop",
    on_image: Callable[[], Any] = lambda: None,
) -> WordStudy:
    """Evaluate every method with every set of words, and the published words under every threshold.

    Args:
        cfg: the benchmark's config.
        dataset: its images.
        model: with the config's weights.
        methods: to compare.
        word_sets: the trials; "published" is the one whose thresholds are studied.
        dataset_name: how it is called in tables.
        logit_scales: further scales under which the thresholds are studied.
        batch_size, workers: as for an evaluation.
        on_error: "stop" or "skip" images that cannot be used.
        on_image: called after each image.

    Raises:
        UserError: an image that cannot be used, a dataset that does not fit the words, features that are not finite.
    """
    settings = model_settings(cfg)
    with explaining_errors(f"config {cfg.filename}"):
        loader = build_loader(cfg, dataset, batch_size, workers, model.device)
    class_names = list(dataset.metainfo["classes"])
    if any(word_set.evaluated_classes != len(class_names) for word_set in word_sets):
        raise UserError(f"{dataset_name} has {len(class_names)} classes; its names file must have a line for each")
    study = _empty_study(dataset_name, class_names, word_sets, methods, settings, logit_scales)
    # Text is encoded before the first image, each word once, whatever set it is in.
    texts = [model.encode_text(word_set.words) for word_set in word_sets]
    preprocessor = ImagePreprocessor(model.mean.flatten().tolist(), model.std.flatten().tolist()).to(model.device)
    for batch in loader:
        images, samples = _preprocessed(batch, preprocessor, study, on_error)
        maps_by_image = _score_maps(model, images, samples, texts, methods, settings)
        for sample, maps_by_text in zip(samples, maps_by_image, strict=True):
            # Counted where the labels are: of each image only the counts leave a GPU.
            truth = sample.gt_sem_seg.data.squeeze(0).to(model.device)
            for word_set, text, maps in zip(word_sets, texts, maps_by_text, strict=True):
                for method, scores in zip(methods, maps, strict=True):
                    row = StudyRow(method.label, word_set.name, scores, text.word_to_class)
                    _count(study, row, truth, dataset.ignore_index, settings.readout)
            study.images += 1
            on_image()
    if not study.images:
        raise UserError("no image was left to evaluate; see the images that were skipped")
    return study


class StudyRow(NamedTuple):
    """What one method says of one image with one set of words."""

    method: str
    word_set: str
    scores: ScoreMap
    word_to_class: Tensor


def _empty_study(
    dataset_name: str,
    class_names: Sequence[str],
    word_sets: Sequence[WordSet],
    methods: Sequence[Method],
    settings: ModelSettings,
    logit_scales: Sequence[float],
) -> WordStudy:
    """A study before its first image."""
    classes = len(class_names)
    thresholds = np.unique([*THRESHOLDS, settings.prob_thd])
    confusion = {}
    threshold_counts = {}
    for method in methods:
        for word_set in word_sets:
            confusion[method.label, word_set.name] = np.zeros((classes, classes + 1), np.int64)
        for scale in (settings.logit_scale, *logit_scales):
            threshold_counts[method.label, scale] = ThresholdCounts(classes, thresholds)
    return WordStudy(
        dataset=dataset_name,
        class_names=class_names,
        word_sets=word_sets,
        methods=[method.label for method in methods],
        prob_thd=settings.prob_thd,
        confusion=confusion,
        threshold_counts=threshold_counts,
    )


def _score_maps(
    model: ClearCLIP,
    images: Sequence[Tensor],
    samples: Sequence[SegDataSample],
    texts: Sequence[TextFeatures],
    methods: Sequence[Method],
    settings: ModelSettings,
) -> list[list[list[ScoreMap]]]:
    """For each image, for each set of words, the score map of each method; every image is encoded once."""
    sizes = [tuple(sample.ori_shape[:2]) for sample in samples]
    # All methods with the first set of words, then all with the second: what does not depend on words is shared.
    text_of_row = []
    for text in texts:
        text_of_row += [text] * len(methods)
    methods_of_rows = [*methods] * len(texts)
    maps_by_image = model.score_maps(images, sizes, text_of_row, methods_of_rows, settings)
    maps_by_image_and_text = []
    for maps in maps_by_image:
        starts = range(0, len(maps), len(methods))
        maps_by_image_and_text.append([maps[start : start + len(methods)] for start in starts])
    return maps_by_image_and_text


def _count(study: WordStudy, row: StudyRow, truth: Tensor, ignore_index: int, readout: Readout) -> None:
    """Count the pixels of an image for one row of the study."""
    size = tuple(truth.shape)
    labels = readout.labels(row.scores, size, row.word_to_class)
    counts = confusion_with_misses(truth, labels, len(study.class_names), ignore_index)
    study.confusion[row.method, row.word_set] += counts
    # The threshold was published for the published words; the others are compared at that one.
    if row.word_set != PUBLISHED:
        return
    for (method, scale), threshold_counts in study.threshold_counts.items():
        if method == row.method:
            without_threshold = replace(readout, logit_scale=scale, prob_thd=0.0)
            labels, probability = without_threshold.labels_with_probability(row.scores, size, row.word_to_class)
            threshold_counts.add(truth, labels, probability, ignore_index)


def _preprocessed(
    batch: dict[str, Any], preprocessor: ImagePreprocessor, study: WordStudy, on_error: str
) -> tuple[list[Tensor], list[SegDataSample]]:
    """The images of a batch that can be used, normalised, and their samples.

    Raises:
        UserError: one cannot be used, and ``on_error`` is "stop".
    """
    images, samples = [], []
    for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
        if sample.failure is not None:
            if on_error == "stop":
                raise UserError(f"{sample.failure}; or go on without such images (--on-error skip)")
            study.failures[sample.img_path] = sample.failure
            continue
        # Images of a batch have sizes of their own, so each is a batch to the preprocessor.
        data = preprocessor({"inputs": [image], "data_samples": [sample]})
        images += data["inputs"]
        samples += data["data_samples"]
    return images, samples

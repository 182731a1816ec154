"""Studies of words and thresholds as plain data: kept beside the records, shown as text, CSV and a sheet.

A study is no run: it fills no cell of a published table. The same study made again takes the place of the earlier one.
"""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clearclip.utils.files import write_bytes
from clearclip.utils.fingerprint import hash_file

#: Raised when the layout changes; studies of another layout are left out.
STUDY_VERSION = 1


@dataclass(frozen=True)
class KindScores:
    """mIoU in percent of one method with all sets of words of one kind.

    Attributes:
        mean, lowest, highest: over the sets of words of the kind.
        best_rank, worst_rank: the places that the method takes among all methods.
        all_classes: the mean where classes that do not occur count as 0.
    """

    mean: float
    lowest: float
    highest: float
    best_rank: int
    worst_rank: int
    all_classes: float

    @property
    def text(self) -> str:
        """Such as "34.8 #2"; where several sets of words differ "36.1 #1-3", with "35.0-37.2" in a line below."""
        rank = f"#{self.best_rank}"
        if self.worst_rank != self.best_rank:
            rank += f"-{self.worst_rank}"
        # One set of words, or a method that they do not move, has no range.
        if self.lowest == self.highest:
            return f"{self.mean:.1f} {rank}"
        return f"{self.mean:.1f} {rank}\n{self.lowest:.1f}-{self.highest:.1f}"


@dataclass(frozen=True)
class ThresholdScores:
    """What a threshold does to one method, with the published words; mIoU in percent.

    Attributes:
        logit_scale: factor of the scores before the softmax.
        protocol_thd, at_protocol: the protocol's threshold, and the score with it.
        best_thd, at_best: the threshold with the highest score, and that score.
        oracle: an upper bound for one threshold per class, each chosen with the ground truth.
        curve: (threshold, score) along the whole curve.
    """

    logit_scale: float
    protocol_thd: float
    at_protocol: float
    best_thd: float
    at_best: float
    oracle: float
    curve: list[tuple[float, float]]


@dataclass(frozen=True)
class MethodStudy:
    """All scores of one method.

    Attributes:
        name: of the row.
        words: kind of word set → its scores.
        thresholds: one entry for each logit scale; the first is the protocol's.
    """

    name: str
    words: dict[str, KindScores]
    thresholds: list[ThresholdScores]


@dataclass(frozen=True)
class WordTable:
    """A study of one dataset with one kind of weights.

    Attributes:
        dataset, weights, protocol: what was studied.
        images: how many.
        word_sets: names of the sets of words.
        methods: the rows.
    """

    dataset: str
    weights: str
    protocol: str
    images: int
    word_sets: list[str]
    methods: list[MethodStudy]

    @property
    def title(self) -> str:
        """What the table is about, in a line."""
        count = f"{self.images} image{'s' if self.images != 1 else ''}"
        return f"words: {self.dataset}, {self.weights}, protocol {self.protocol}, {count}"

    @property
    def kinds(self) -> list[str]:
        """The kinds of word sets, in order."""
        return list(self.methods[0].words)

    @property
    def key(self) -> tuple[str, str, str]:
        """Studies with the same key replace each other."""
        return (self.dataset, self.weights, self.protocol)

    def order(self, word_kind: str) -> list[str]:
        """The methods from the best to the worst with one kind of words."""
        ranked = sorted(self.methods, key=lambda method: -method.words[word_kind].mean)
        return [method.name for method in ranked]

    @property
    def verdict(self) -> str:
        """Whether the order of the methods depends on the words, in a sentence."""
        published, *other_kinds = self.kinds
        if len(self.methods) < 2 or not other_kinds:
            return "one method or one kind of words: there is no order to compare"
        kinds_of_other_order = [
            word_kind for word_kind in other_kinds if self.order(word_kind) != self.order(published)
        ]
        if not kinds_of_other_order:
            return "the order of the methods is the same with all kinds of words"
        return f"the order of the methods is another one with these words: {', '.join(kinds_of_other_order)}"

    @classmethod
    def parse(cls, data: dict) -> WordTable:
        """From what :meth:`to_json` writes.

        Raises:
            KeyError, TypeError, ValueError: it is of another layout.
        """
        # Fields of another layout would land in the wrong places.
        if data.pop("version") != STUDY_VERSION:
            raise ValueError("another layout")
        methods = []
        for method in data.pop("methods"):
            words = {word_kind: KindScores(**scores) for word_kind, scores in method["words"].items()}
            thresholds = [ThresholdScores(**scores) for scores in method["thresholds"]]
            methods.append(MethodStudy(method["name"], words, thresholds))
        return cls(**data, methods=methods)

    def to_json(self) -> str:
        """A line of JSON."""
        return json.dumps({"version": STUDY_VERSION, **asdict(self)})


def studies_path(results: str | Path) -> Path:
    """The file of the studies that belong to a workbook."""
    return Path(results).with_suffix(".words.jsonl")


def studies_digest(results: str | Path) -> str:
    """What a workbook depends on beside its records: the studies' file by content, "" where there is none."""
    path = studies_path(results)
    return hash_file(path) if path.is_file() else ""


def read_studies(results: str | Path) -> list[WordTable]:
    """The studies beside a workbook, the latest of each kind; a line that cannot be read is named and left out."""
    path = studies_path(results)
    if not path.is_file():
        return []
    studies: dict[tuple[str, str, str], WordTable] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            study = WordTable.parse(json.loads(line))
            studies[study.key] = study
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            warnings.warn(f"{path}, line {number}: no study ({error}); it is left out", stacklevel=2)
    return list(studies.values())


def keep_study(study: WordTable, results: str | Path) -> Path:
    """Write a study beside a workbook, in place of an earlier one of the same kind.

    Raises:
        UserError: the place cannot be written.
    """
    # The file is small, so that it is written anew in place of being appended to.
    studies = [earlier for earlier in read_studies(results) if earlier.key != study.key]
    text = "".join(f"{study_of_file.to_json()}\n" for study_of_file in [*studies, study])
    return write_bytes(studies_path(results), text.encode())


def words_csv(studies: Sequence[WordTable]) -> str:
    """All scores of all studies, a line each: for words and, with the threshold as one more column, for the curves."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["dataset", "weights", "protocol", "images", "method", "words", "logit_scale", "prob_thd", "mIoU",
                     "lowest", "highest", "best_rank", "worst_rank", "mIoU_all_classes"])  # fmt: skip
    for study in studies:
        for method in study.methods:
            line = [study.dataset, study.weights, study.protocol, study.images, method.name]
            protocol_thresholds = method.thresholds[0]
            for word_kind, scores in method.words.items():
                values = [scores.mean, scores.lowest, scores.highest]
                ranks = [scores.best_rank, scores.worst_rank, _four_decimals(scores.all_classes)]
                scale, threshold = protocol_thresholds.logit_scale, protocol_thresholds.protocol_thd
                writer.writerow([*line, word_kind, scale, threshold, *map(_four_decimals, values), *ranks])
            for thresholds in method.thresholds:
                for threshold, score in thresholds.curve:
                    writer.writerow(
                        [*line, "published, curve", thresholds.logit_scale, threshold, _four_decimals(score)]
                    )
    return output.getvalue()


def _four_decimals(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"

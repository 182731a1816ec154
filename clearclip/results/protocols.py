"""Protocols: how a benchmark is evaluated, as data (``protocols.csv``), and in what a run differs from one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clearclip.results.data_files import read_csv, read_options
from clearclip.utils.errors import UserError

#: What a number may be computed in: fp16 on a GPU, as published, or more exactly.
_PUBLISHED_PRECISIONS = ("fp16", "fp32")
#: Stands for a setting that a run or a protocol does not have.
ABSENT = "not set"


@dataclass(frozen=True)
class Difference:
    """A setting of a run that is not that of a published protocol.

    Attributes:
        setting: its name, as a config or the list of runs spells it.
        measured: its value in the run.
        published: its value in the protocol.
    """

    setting: str
    measured: Any
    published: Any

    def __str__(self) -> str:
        return f"{self.setting} is {self.measured}, published {self.published}"


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is evaluated, whatever the weights and the method.

    Attributes:
        protocol: whose protocol.
        dataset, title: the benchmark's name here, and as papers write it.
        images: how many there are; None where no source says how many, so that no run is known to be complete.
        classes, ignore_index, reduce_zero_label: as MMSegmentation's datasets mean them.
        names_file: the file of the class words, in ``config/``.
        words: a hash of these words.
        resize: long and short side in pixels to which images are resized, or empty: they keep their size.
        model: the options of the model (windows, readout, post-processing), by their names in a config. An option
            that is not named here has its default.
        methods: options of methods that differ between datasets, by the method's name, as labels show them.
        labels: a hash of how ids become classes, or empty: the classes are the ids in order.
        data: a hash of the images and one of the masks, or empty where these are not known.
    """

    protocol: str
    dataset: str
    title: str
    images: int | None
    classes: int
    names_file: str
    words: str
    ignore_index: int
    reduce_zero_label: bool
    resize: tuple[int, ...]
    model: Mapping[str, Any]
    methods: Mapping[str, str]
    labels: str
    data: str

    @property
    def scale(self) -> list[int]:
        """Long and short side in pixels to which images are resized, or nothing."""
        return list(self.resize)

    def label(self, method: str) -> str:
        """The label of a method with the options that it has here: "NACLIP + RCS" to "NACLIP + RCS (lambda_r=0.4)"."""
        labels: list[str] = []
        for name in method.split(" + "):
            if name in self.methods:
                labels.append(f"{name} ({self.methods[name]})")
            else:
                labels.append(name)
        return " + ".join(labels)

    @property
    def method_options(self) -> dict[str, dict[str, Any]]:
        """Options of methods that differ between datasets: the method's name → option → value."""
        return {name: read_options(text.replace(", ", "; ")) for name, text in self.methods.items()}

    def settings(self, row_settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every setting that a published run has, by its name in the list of runs.

        Args:
            row_settings: options of the model that a table's row was published with, where they differ.
        """
        expected: dict[str, Any] = {
            "images": self.images,
            "dataset.classes": self.classes,
            "dataset.ignore_index": self.ignore_index,
            "dataset.reduce_zero_label": self.reduce_zero_label,
            "dataset.labels": self.labels,
            "words": self.words,
            "resize": "x".join(map(str, self.resize)),
        }
        # Those of a row take the place of the protocol's.
        for options in (self.model, row_settings or {}):
            expected |= _with_prefix("model.", options)
        if self.data:
            expected["dataset.images"], expected["dataset.masks"] = self.data.split()
        return _without_absent(expected)

    def differences(
        self, facts: Mapping[str, Any], row_settings: Mapping[str, Any] | None = None, any_normalization: bool = False
    ) -> list[Difference]:
        """In what a run differs from this protocol, whatever its weights and its method.

        Args:
            facts: of the run, as its record has them.
            row_settings: options of the model that a table's row was published with, where they differ.
            any_normalization: mean and standard deviation are not compared, since the row's weights have other ones.
        """
        # Both are flat, so that each setting is compared once and named alone.
        expected = self.settings(row_settings)
        actual = run_settings(facts)
        # Rows of the paper normalise with OpenAI's mean and standard deviation, other backbones with their own.
        if any_normalization:
            actual.pop("model.normalization", None)
        # Which files these are is not known of most benchmarks, and follows where some of them were left out.
        if not self.data or actual.get("images") != self.images:
            for settings in (actual, expected):
                settings.pop("dataset.images", None)
                settings.pop("dataset.masks", None)
        if self.images is None:
            expected["images"] = "a number that no source gives"
        differences: list[Difference] = []
        for name in dict.fromkeys([*expected, *actual]):
            in_both = name in actual and name in expected
            # A setting that one of them lacks differs, even where the other says None.
            if not (in_both and actual[name] == expected[name]):
                differences.append(self._difference(name, actual.get(name, ABSENT), expected.get(name, ABSENT)))
        # What is computed in is a fact of the machine, not of the protocol.
        precision = facts["environment"].get("precision")
        if precision not in _PUBLISHED_PRECISIONS:
            differences.append(Difference("precision", precision, " or ".join(_PUBLISHED_PRECISIONS)))
        return differences

    def _difference(self, name: str, measured: Any, published: Any) -> Difference:
        """A difference in words: hashes of class words are those of a file."""
        if name == "words":
            return Difference(name, _words_file(measured), f"those of {self.names_file}")
        return Difference(name, measured, published)

    def matches(
        self, facts: Mapping[str, Any], row_settings: Mapping[str, Any] | None = None, any_normalization: bool = False
    ) -> bool:
        """Whether a run was made by this protocol, see :meth:`differences`."""
        return not self.differences(facts, row_settings, any_normalization)


def _is_absent(value: Any) -> bool:
    """Whether a setting says nothing: an option that is None or an empty text is at its default."""
    return value is None or value == "" or value == [] or value == {}


def _without_absent(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that say something."""
    return {name: value for name, value in settings.items() if not _is_absent(value)}


def _with_prefix(prefix: str, settings: Mapping[str, Any], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Settings by the names that they have in a flat list of all."""
    return {f"{prefix}{name}": value for name, value in settings.items() if name not in left_out}


def run_settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a run that a protocol could speak of, by the names of :meth:`Protocol.settings`."""
    settings: dict[str, Any] = {"images": facts["dataset"].get("count"), "words": facts["model"].get("words")}
    settings |= _with_prefix("dataset.", facts["dataset"], left_out=("name", "count"))
    settings |= _with_prefix("model.", facts["model"], left_out=("words",))
    settings |= _input_settings(facts["input"])
    settings |= _with_prefix("other.", facts.get("other", {}))
    return _without_absent(settings)


#: The steps of every published pipeline; after the first of them images may be resized.
_PLAIN_STEPS = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]


def _input_settings(reads: Mapping[str, Any]) -> dict[str, Any]:
    """How images are read: to what they are resized, and whatever no published pipeline has."""
    settings = _with_prefix("input.", reads, left_out=("pipeline",))
    # Where several datasets are joined, each has a pipeline; that there are several is a setting of its own.
    pipeline = reads.get("pipeline") or (reads.get("pipelines") or [[]])[0]
    if not isinstance(pipeline, list):
        settings["input.pipeline"] = pipeline
        return settings
    if [step for step in pipeline if step in _PLAIN_STEPS] != _PLAIN_STEPS:
        settings["input.pipeline"] = pipeline or "empty"
    further_steps: list[Any] = []
    for position, step in enumerate(pipeline):
        if step in _PLAIN_STEPS:
            continue
        is_resize = isinstance(step, Mapping) and step.get("type") == "Resize"
        # Published pipelines resize once; a second step is one of the further ones.
        if is_resize and "resize" not in settings:
            settings["resize"] = _resize_text(step, position)
        else:
            further_steps.append(step)
    if further_steps:
        settings["input.further steps"] = further_steps
    return settings


def _resize_text(step: Mapping[str, Any], position: int) -> str:
    """LONGxSHORT of a step that resizes images, keeps their aspect and comes right after they are loaded."""
    options = {name: value for name, value in step.items() if name != "type"}
    scale = options.get("scale")
    is_published_kind = isinstance(scale, list) and len(scale) == 2 and options == {"scale": scale, "keep_ratio": True}
    if is_published_kind:
        text = f"{scale[0]}x{scale[1]}"
    else:
        text = json.dumps(options, sort_keys=True)
    # After the ground truth is loaded it would be resized as well.
    if position != 1:
        text += f" as step {position + 1}"
    return text


def _words_file(words: Any) -> str:
    """Which published words these are, by their hash."""
    for protocol in protocols().values():
        if protocol.words == words:
            return f"those of {protocol.names_file}"
    return "words of your own"


#: The columns of ``protocols.csv`` that are no options of the model; every other column is one.
_COLUMNS = (
    "protocol", "dataset", "title", "images", "classes", "names_file", "words", "ignore_index", "reduce_zero_label",
    "resize", "model_options", "methods", "labels", "data",
)  # fmt: skip


def _read_protocol(line: Mapping[str, str]) -> Protocol:
    """A line of ``protocols.csv``."""
    model = read_options(line["model_options"])
    # A new option of the model is a new column, and nothing else.
    for column, cell in line.items():
        if column not in _COLUMNS and cell:
            model |= read_options(f"{column}={cell}")
    methods: dict[str, str] = {}
    entries = filter(None, line["methods"].split("; "))
    for entry in entries:
        name, _, options = entry.partition(": ")
        methods[name] = options
    return Protocol(
        protocol=line["protocol"],
        dataset=line["dataset"],
        title=line["title"],
        images=int(line["images"]) if line["images"] else None,
        classes=int(line["classes"]),
        names_file=line["names_file"],
        words=line["words"],
        ignore_index=int(line["ignore_index"]),
        reduce_zero_label=line["reduce_zero_label"] == "yes",
        resize=tuple(int(side) for side in line["resize"].split("x") if side),
        model=model,
        methods=methods,
        labels=line["labels"],
        data=line["data"],
    )


@lru_cache
def protocols() -> dict[tuple[str, str], Protocol]:
    """(protocol, dataset) → how the benchmark is evaluated."""
    protocol_by_key: dict[tuple[str, str], Protocol] = {}
    for line in read_csv("protocols.csv"):
        protocol_by_key[line["protocol"], line["dataset"]] = _read_protocol(line)
    return protocol_by_key


def protocol_names() -> list[str]:
    """The protocols; the first is that of ClearCLIP's paper."""
    return list(dict.fromkeys(name for name, _ in protocols()))


def find_protocol(name: str, dataset: str) -> Protocol:
    """How a benchmark is evaluated by a protocol.

    Raises:
        UserError: the protocol says nothing about it.
    """
    if (name, dataset) not in protocols():
        datasets = ", ".join(dataset for protocol, dataset in protocols() if protocol == name)
        raise UserError(f"protocol {name} is for {datasets}, not for {dataset}; leave --protocol out")
    return protocols()[name, dataset]


def nearest_protocol(
    facts: Mapping[str, Any], row_settings: Sequence[Mapping[str, Any]]
) -> tuple[str, list[Difference]] | None:
    """The protocol of a run's dataset from which it differs least, and in what.

    A run that is nobody's is compared with the first protocol, unless another one is nearer by two settings: whoever
    runs the bundled configs means the first.

    Args:
        facts: of the run.
        row_settings: settings that rows of the run's method were published with; an empty one for the protocol's own.

    Returns:
        The protocol's name and the differences; None where no protocol is for the dataset.
    """
    nearest: tuple[int, str, list[Difference]] | None = None
    for (name, dataset), protocol in protocols().items():
        if dataset != facts["dataset"]["name"]:
            continue
        for settings in row_settings:
            differences = protocol.differences(facts, settings, any_normalization=True)
            distance = distance_of(name, differences)
            if nearest is None or distance < nearest[0]:
                nearest = distance, name, differences
    return None if nearest is None else nearest[1:]


def distance_of(protocol: str, differences: Sequence[Difference]) -> int:
    """How far a run is from a protocol, see :func:`nearest_protocol`."""
    is_another = protocol != protocol_names()[0] and bool(differences)
    return 2 * len(differences) + 3 * is_another


def difference_texts(protocol: str, differences: Sequence[Difference]) -> list[str]:
    """Differences in sentences, which name the protocol where it is not the first one."""
    if protocol == protocol_names()[0]:
        return list(map(str, differences))
    return [f"{difference} by {protocol}'s protocol" for difference in differences]


def dataset_title(dataset: str) -> str:
    """A benchmark's name as papers write it; any other dataset's as it is."""
    for protocol in protocols().values():
        if protocol.dataset == dataset:
            return protocol.title
    return dataset

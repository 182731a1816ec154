"""The schema of a record: what is kept of a run, checked field by field when it is read."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

#: The version of the schema; raised when a field changes its meaning. Records without one are older.
SCHEMA_VERSION = 2
#: The parts of a run's facts that tables and lists read.
FACTS = ("dataset", "input", "model", "other", "weights", "method", "environment")
#: Facts of people's settings are seldom nested more than five levels deep; what is deeper is no record of ours.
MAX_DEPTH = 60
#: No number of ours comes near it, and a workbook can hold no larger one.
MAX_NUMBER = 1e300

#: A check takes a value and gives what is wrong with it, or an empty text.
FieldCheck = Callable[[Any], str]


class RecordError(ValueError):
    """A line that is no record; the message says which field does not fit."""


def _text_fault(value: Any) -> str:
    return "" if isinstance(value, str) else "is no text"


def _time_fault(value: Any) -> str:
    try:
        moment = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return "is no time (ISO 8601)"
    return "" if moment.tzinfo is not None else "has no time zone"


def _count_fault(value: Any) -> str:
    # True is a whole number to Python, and JavaScript loses digits beyond 2^53.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
        return ""
    return "is no whole number"


def _number_fault(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER:
        return ""
    return "is no number"


def _percent_fault(value: Any) -> str:
    if value is None:  # no pixel counted
        return ""
    fault = _number_fault(value)
    if not fault and not 0 <= value <= 100:
        fault = "is no percentage"
    return fault


def _list_fault(check: FieldCheck) -> FieldCheck:
    """A list whose entries all pass a check."""

    def check_list(value: Any) -> str:
        if not isinstance(value, list):
            return "is no list"
        for entry in value:
            fault = check(entry)
            if fault:
                return f"has an entry that {fault}"
        return ""

    return check_list


def _facts_fault(value: Any) -> str:
    """Whether every part that is read here is an object, and its names and labels are texts."""
    if not isinstance(value, dict):
        return "are no object"
    for name in FACTS:
        if name in value and not isinstance(value[name], dict):
            return f"have a part {name} that is no object"
    # These are read wherever a record is listed.
    for section, name in (("dataset", "name"), ("method", "label"), ("weights", "origin")):
        if section in value and not isinstance(value[section].get(name), str):
            return f"have a part {section} without {name}"
    return ""


def _checked(check: FieldCheck, key: str = "", earlier_key: str = "", **options: Any) -> Any:
    """A field of :class:`Record` with its check.

    Args:
        check: says what is wrong with a value.
        key: the field's key in the file, where that is no name in Python.
        earlier_key: under which earlier versions wrote it; read, but no longer written.
        options: of :func:`dataclasses.field`.
    """
    return field(metadata={"check": check, "key": key, "earlier_key": earlier_key}, **options)


@dataclass(frozen=True)
class Record:
    """A run of one method on one dataset.

    Attributes:
        time: when it began, ISO 8601.
        dataset, method: the dataset's name and the method's label.
        images, skipped: how many images were counted, and how many were left out.
        aAcc, mIoU, mAcc: in percent; None where no pixel counted.
        seconds, images_per_second: of the evaluation.
        classes, iou: the names of the classes, and the IoU of each, None where it occurs nowhere.
        recall, precision, dice: of each class, as IoU; empty where an earlier version did not note them.
        fingerprint: a hash of the facts, by which a result is known.
        facts: all that the number depends on.
        not_published_because: why it may fill no published cell, as it was known when it was recorded; None where an
            earlier version did not note it.
        version, commit: of this program.
        id: tells it from every other record; it begins with the id of the command that made it.
        schema: the version of this list of fields.
        line: where it stands in its file.
        remark: why it is listed, but in no table; empty where nothing is the matter.
    """

    time: str = _checked(_time_fault)
    dataset: str = _checked(_text_fault)
    method: str = _checked(_text_fault)
    images: int = _checked(_count_fault)
    skipped: int = _checked(_count_fault)
    aAcc: float | None = _checked(_percent_fault)  # noqa: N815 (as MMSegmentation spells it)
    mIoU: float | None = _checked(_percent_fault)  # noqa: N815
    mAcc: float | None = _checked(_percent_fault)  # noqa: N815
    seconds: float = _checked(_number_fault)
    images_per_second: float = _checked(_number_fault, "images/s")
    classes: list[str] = _checked(_list_fault(_text_fault))
    iou: list[float | None] = _checked(_list_fault(_percent_fault))
    fingerprint: str = _checked(_text_fault)
    facts: dict[str, Any] = _checked(_facts_fault)
    recall: list[float | None] = _checked(_list_fault(_percent_fault), default_factory=list)
    precision: list[float | None] = _checked(_list_fault(_percent_fault), default_factory=list)
    dice: list[float | None] = _checked(_list_fault(_percent_fault), default_factory=list)
    not_published_because: list[str] | None = _checked(
        _list_fault(_text_fault), earlier_key="not_in_table_because", default=None
    )
    version: str = _checked(_text_fault, default="")
    commit: str = _checked(_text_fault, default="")
    id: str = _checked(_text_fault, default="")
    schema: int = _checked(_count_fault, default=1)
    line: int = 0
    remark: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether it is of all images, and was read as it was written."""
        return not self.remark and not self.skipped

    @property
    def fills_cells(self) -> bool:
        """Whether it is complete and has no reason against it; which published cell it fits, if any, the tables say."""
        return self.is_complete and self.not_published_because == []

    @property
    def moment(self) -> datetime.datetime:
        """When it began."""
        return datetime.datetime.fromisoformat(self.time)

    @property
    def weights(self) -> str:
        """Whose weights, in a few words: ``CLIP ViT-B/16``."""
        facts = self.facts.get("weights", {})
        # Published weights are known by the tables' names, any others by OpenCLIP's.
        names = (facts.get("clip_type") or facts.get("model"), facts.get("vit_type") or facts.get("tag"))
        return " ".join(str(name) for name in names if name)

    def to_json(self) -> dict[str, Any]:
        """The record by the keys that it has in its file."""
        return {_key(entry): getattr(self, entry.name) for entry in fields(self) if entry.metadata}


def _key(entry: Any) -> str:
    """The key under which a field is written."""
    return entry.metadata["key"] or entry.name


def _key_in(data: Mapping[str, Any], entry: Any) -> str:
    """The key under which a field stands in a record: an earlier version's, where the record has that one alone."""
    earlier_key = entry.metadata["earlier_key"]
    if earlier_key in data and _key(entry) not in data:
        return earlier_key
    return _key(entry)


#: The fields without which a line is no record at all; one that lacks others was written by an earlier version.
_LEAST = ("dataset", "method", "mIoU")
#: What stands for fields that an earlier version did not write.
_UNKNOWN: dict[str, Any] = {
    "time": "1970-01-01T00:00:00+00:00", "images": 0, "skipped": 0, "aAcc": None, "mAcc": None, "seconds": 0.0,
    "images_per_second": 0.0, "classes": [], "iou": [], "fingerprint": "", "facts": {},
}  # fmt: skip
EARLIER_VERSION = "recorded by an earlier version"
#: Why a complete record of the version before this one fills no cell.
NOT_NOTED = "recorded by an earlier version, which did not note everything that a published number is made of"


def parse_record(data: Any, line: int = 0) -> Record:
    """A record from what a line of its file says.

    Raises:
        RecordError: a field does not fit; says which one.
    """
    if not isinstance(data, dict):
        raise RecordError("is no object")
    check_plain(data)
    values: dict[str, Any] = {}
    lacks: list[str] = []
    for entry in fields(Record):
        if not entry.metadata:
            continue
        key = _key_in(data, entry)
        if key in data:
            fault = entry.metadata["check"](data[key])
            if fault:
                raise RecordError(f"{key} {fault}")
            values[entry.name] = data[key]
        elif entry.name in _LEAST:
            raise RecordError(f"it has no {entry.name}")
        elif entry.name in _UNKNOWN:
            # What an earlier version did not write costs a record its cell, not its place in the list.
            values[entry.name] = _UNKNOWN[entry.name]
            lacks.append(entry.name)
    _check_agreement(values)
    lacks += [name for name in FACTS if name not in values["facts"]]
    return Record(**values, line=line, remark=EARLIER_VERSION if lacks else "")


def check_plain(value: Any) -> None:
    """Whether data is what JSON and a workbook can hold.

    Raises:
        RecordError: it is nested too deeply, or has a number that is too large.
    """
    # No recursion: what is nested more deeply than Python's stack has to be seen as well.
    level = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
            elif isinstance(item, int | float) and not abs(item) < MAX_NUMBER:
                raise RecordError("has a number that is too large")
        if not deeper:
            return
        level = deeper
    raise RecordError(f"is nested more than {MAX_DEPTH} levels deep")


def _check_agreement(values: Mapping[str, Any]) -> None:
    """Whether what a record says twice agrees.

    Raises:
        RecordError: it does not.
    """
    classes = len(values["classes"])
    for name in ("iou", "recall", "precision", "dice"):
        # Earlier versions noted IoU alone.
        if len(values.get(name, ())) not in (classes, 0 if name != "iou" else classes):
            raise RecordError(f"has {classes} classes, but {name} of {len(values[name])}")
    facts = values["facts"]
    for name, key in (("dataset", "name"), ("method", "label")):
        if name in facts and facts[name][key] != values[name]:
            raise RecordError(f"{name} and its facts disagree")

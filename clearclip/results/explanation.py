"""Why a run is or is not in a table: each setting that differs, and the known trap that its number looks like."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from clearclip.results.cells import fits_own_row, row_differences
from clearclip.results.data_files import read_csv
from clearclip.results.protocols import (
    Difference,
    dataset_title,
    difference_texts,
    distance_of,
    protocol_names,
    protocols,
)
from clearclip.results.published_numbers import PublishedNumber, find_published
from clearclip.results.record import NOT_NOTED, Record
from clearclip.results.table_definitions import Row, Table, find_table, tables

#: A number this near to a known one, in points, looks like it: twice what half precision and versions move.
NEAR = 0.3


@dataclass(frozen=True)
class Comparison:
    """A run beside a cell of a table.

    Attributes:
        table, row, protocol: which cell.
        differences: every setting in which the run differs from what the cell shows.
        published: the number that was published for the cell, where there is one.
    """

    table: Table
    row: Row
    protocol: str
    differences: list[Difference]
    published: PublishedNumber | None


@dataclass(frozen=True)
class Trap:
    """A known way to a wrong number.

    Attributes:
        trap: what it is called.
        setting, value: the setting that is wrong, and with which value; an empty value is any but the published one.
        published: the right value, where it is one.
        dataset, method: where it was seen; empty: anywhere.
        miou, right_miou: the number that it gave, and that it should be, in percent; None where nobody published it.
        source: who reported it.
        remedy: what to do.
    """

    trap: str
    setting: str
    value: str
    published: str
    dataset: str
    method: str
    miou: float | None
    right_miou: float | None
    source: str
    remedy: str

    def concerns(self, record: Record) -> bool:
        """Whether it was seen on the run's dataset and method."""
        return self.dataset in ("", record.dataset) and self.method in ("", record.method)

    def is_difference(self, difference: Difference) -> bool:
        """Whether it is this deviation from a protocol."""
        return self.setting == difference.setting and self.value in ("", _value_text(difference.measured))

    def has_number(self, miou: float | None) -> bool:
        """Whether a number looks like the one that it gave."""
        return miou is not None and self.miou is not None and abs(miou - self.miou) <= NEAR


@dataclass(frozen=True)
class Explanation:
    """All that is known about why a run has its number.

    Attributes:
        record: the run.
        reasons: why it is in no table; empty where it is in one.
        comparison: the cell that it is in, or the one that it comes nearest to; None where no table has its dataset.
        settings_traps: known traps that are among the differences.
        number_traps: known traps that gave this number.
    """

    record: Record
    reasons: list[str]
    comparison: Comparison | None
    settings_traps: list[Trap]
    number_traps: list[Trap]


def not_in_table_because(record: Record) -> list[str]:
    """Why a run is in no table, in sentences; empty where it is in one."""
    if record.remark:
        return [record.remark]
    noted = record.not_in_table_because
    reasons = [NOT_NOTED] if noted is None else list(noted)
    if record.skipped:
        reasons.append("an image was skipped" if record.skipped == 1 else f"{record.skipped} images were skipped")
    if fits_own_row(record):
        return reasons
    comparison = nearest_cell(record)
    if comparison is None:
        return [*reasons, f"no table has the dataset {record.dataset}"]
    texts = difference_texts(comparison.protocol, comparison.differences)
    # What was noted when the run was recorded may name the same settings.
    return list(dict.fromkeys([*reasons, *texts]))


def explain(record: Record) -> Explanation:
    """Explain a run's number by the settings in which it differs from what was published."""
    reasons = not_in_table_because(record)
    if record.remark:
        return Explanation(record, reasons, None, [], [])
    comparison = nearest_cell(record)
    differences = comparison.differences if comparison is not None else []
    concerned = [trap for trap in traps() if trap.concerns(record)]
    settings_traps: dict[str, Trap] = {}
    for trap in concerned:
        if any(trap.is_difference(difference) for difference in differences):
            settings_traps.setdefault(trap.trap, trap)
    # A trap on another setting than those that differ is named for its number alone.
    number_traps = [trap for trap in concerned if trap.has_number(record.mIoU) and trap.trap not in settings_traps]
    return Explanation(record, reasons, comparison, list(settings_traps.values()), number_traps)


def nearest_cell(record: Record) -> Comparison | None:
    """The cell that a run belongs to, or the one from which it differs in the fewest settings."""
    differences_of_protocols: dict[tuple[str, str], list[Difference]] = {}
    best: tuple[tuple[int, int, float], Comparison] | None = None
    for table, row, protocol in _cells_of(record.dataset):
        settings = row.settings_for(record.dataset)
        # Most rows are published with their protocol's settings: these are compared once.
        key = (protocol, f"{settings}{not row.clip_type}")
        if key not in differences_of_protocols:
            differences_of_protocols[key] = protocols()[protocol, record.dataset].differences(
                record.facts, settings, own_normalization=not row.clip_type
            )
        row_faults = row_differences(record, row, protocol)
        differences = row_faults + differences_of_protocols[key]
        # Of cells that are equally near, the one with the run's own weights and method.
        likeness = difflib.SequenceMatcher(None, record.method, row.label).ratio()
        rank = (distance_of(protocol, differences), len(row_faults), -likeness)
        if best is None or rank < best[0]:
            published = find_published(table, row, record.dataset, protocol)
            best = rank, Comparison(table, row, protocol, differences, published)
    return None if best is None else best[1]


def _cells_of(dataset: str) -> Iterator[tuple[Table, Row, str]]:
    """Every cell that a dataset has: table, row and protocol."""
    first = protocol_names()[0]
    names = [protocol for protocol, name in protocols() if name == dataset]
    for table in _tables_with(dataset):
        for protocol in names:
            if protocol == first or table.any_protocol:
                for row in table.rows:
                    yield table, row, protocol


def _tables_with(dataset: str) -> list[Table]:
    """The tables that have a dataset among their columns."""
    candidates = list(tables().values())
    candidates += [find_table(table.name, miniature=True) for table in tables().values() if table.miniature]
    return [table for table in candidates if dataset in table.datasets]


@lru_cache
def traps() -> tuple[Trap, ...]:
    """The known traps, as data (``traps.csv``)."""
    return tuple(_read_trap(line) for line in read_csv("traps.csv"))


def _read_trap(line: Mapping[str, str]) -> Trap:
    numbers = {name: float(line[name]) if line[name] else None for name in ("miou", "right_miou")}
    return Trap(**{**line, **numbers})


def _value_text(value: object) -> str:
    """A setting's value as ``traps.csv`` spells it: 0.0 is 0."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def explanation_lines(explanation: Explanation) -> list[str]:
    """An explanation as lines of text, one screen."""
    record, comparison = explanation.record, explanation.comparison
    miou = "n/a" if record.mIoU is None else f"{record.mIoU:.2f}"
    lines = [
        f"line {record.line}: {dataset_title(record.dataset)}, {record.method}, {record.weights}, "
        f"mIoU {miou}, {record.images} images, {record.time}"
    ]
    if comparison is not None:
        lines.append(f"{'nearest cell' if explanation.reasons else 'in the table'}: {_cell_text(comparison, record)}")
    if not explanation.reasons:
        lines.append("every setting is the published one")
    else:
        lines += ["not in a table because", *(f"  {reason}" for reason in explanation.reasons)]
    for heading, listed in (
        ("known traps among these settings", explanation.settings_traps),
        ("its number looks like that of a known trap", explanation.number_traps),
    ):
        lines += _trap_lines(heading, listed)
    return lines


def _cell_text(comparison: Comparison, record: Record) -> str:
    """A cell in words, with what was published for it."""
    cell = f"{comparison.table.title}, {comparison.row.vit} {comparison.row.system}, protocol {comparison.protocol}"
    if comparison.published is None:
        return f"{cell}; nothing was published for it"
    number = comparison.published
    difference = "" if record.mIoU is None else f", this run {record.mIoU - number.miou:+.1f}"
    return f"{cell}; published {number.miou:g}{difference} ({number.source})"


def _trap_lines(heading: str, listed: Sequence[Trap]) -> list[str]:
    """Traps in words: what they are, how large they were, what to do, and who says so."""
    lines = [heading] if listed else []
    for trap in listed:
        size = "" if trap.miou is None else f" ({trap.miou:g} in place of {trap.right_miou:g})"
        lines.append(f"  {trap.trap}{size}: {trap.remedy} [{trap.source}]")
    return lines

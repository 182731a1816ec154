"""Why a run is or is not in a table: each setting that differs, and the known trap that its number looks like."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clearclip.results.cells import miou_text
from clearclip.results.matching import row_differences
from clearclip.results.own_rows import is_in_own_row
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
from clearclip.results.table_definitions import Row, Table, every_table
from clearclip.results.traps import Trap, traps


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
class Explanation:
    """All that is known about why a run has its number.

    Attributes:
        record: the run.
        reasons: why it is in no table; empty where it is in one.
        comparison: the cell that it is in, or the one that it comes nearest to; None where no table has its dataset.
        settings_traps: known traps that are among the differences, each once.
        number_traps: known traps that gave this number.
    """

    record: Record
    reasons: list[str]
    comparison: Comparison | None
    settings_traps: list[Trap]
    number_traps: list[Trap]


def reasons_against_tables(record: Record) -> list[str]:
    """Why a run is in no table, in sentences; empty where it is in one."""
    if record.remark:
        return [record.remark]
    reasons = _own_reasons(record)
    if is_in_own_row(record):
        return reasons
    comparison = nearest_cell(record)
    if comparison is None:
        reasons.append(f"no table has the dataset {record.dataset}")
    else:
        reasons += difference_texts(comparison.protocol, comparison.differences)
    # What was noted when the run was recorded may name the same settings.
    return list(dict.fromkeys(reasons))


def _own_reasons(record: Record) -> list[str]:
    """What a record says against itself."""
    reasons = [NOT_NOTED]
    if record.not_published_because is not None:
        reasons = list(record.not_published_because)
    if record.skipped == 1:
        reasons.append("an image was skipped")
    elif record.skipped:
        reasons.append(f"{record.skipped} images were skipped")
    return reasons


def explain(record: Record) -> Explanation:
    """Explain a run's number by the settings in which it differs from what was published."""
    reasons = reasons_against_tables(record)
    if record.remark:
        return Explanation(record, reasons, None, [], [])
    comparison = nearest_cell(record)
    differences = comparison.differences if comparison is not None else []
    settings_traps: dict[str, Trap] = {}
    for trap in traps():
        if trap.concerns(record) and any(map(trap.is_difference, differences)):
            settings_traps.setdefault(trap.trap, trap)
    number_traps = []
    for trap in traps():
        # A trap that is among the settings has been named already.
        if trap.concerns(record) and trap.gave_number(record.mIoU) and trap.trap not in settings_traps:
            number_traps.append(trap)
    return Explanation(record, reasons, comparison, list(settings_traps.values()), number_traps)


def nearest_cell(record: Record) -> Comparison | None:
    """The cell that a run belongs to, or the one from which it differs in the fewest settings."""
    settings_differences: dict[tuple[str, str], list[Difference]] = {}
    best_rank: tuple[int, int, float] | None = None
    best_cell: Comparison | None = None
    for table, row, protocol in _cells_of(record.dataset):
        settings = row.settings_for(record.dataset)
        # Most rows are published with their protocol's settings: these are compared once.
        key = (protocol, f"{settings}{row.clip_type == ''}")
        if key not in settings_differences:
            how = protocols()[protocol, record.dataset]
            settings_differences[key] = how.differences(record.facts, settings, any_normalization=not row.clip_type)
        faults_of_row = row_differences(record, row, protocol)
        differences = faults_of_row + settings_differences[key]
        # Of cells that are equally near, the one with the run's own weights and a method of a similar name.
        likeness = difflib.SequenceMatcher(None, record.method, row.label).ratio()
        rank = (distance_of(protocol, differences), len(faults_of_row), -likeness)
        if best_rank is None or rank < best_rank:
            published = find_published(table, row, record.dataset, protocol)
            best_rank, best_cell = rank, Comparison(table, row, protocol, differences, published)
    return best_cell


def _cells_of(dataset: str) -> Iterator[tuple[Table, Row, str]]:
    """Every cell that a dataset has: table, row and protocol."""
    first = protocol_names()[0]
    names = [protocol for protocol, name in protocols() if name == dataset]
    for table in every_table():
        if dataset not in table.datasets:
            continue
        for protocol in names:
            if protocol == first or table.any_protocol:
                yield from ((table, row, protocol) for row in table.rows)


def explanation_lines(explanation: Explanation) -> list[str]:
    """An explanation as lines of text, one screen."""
    record = explanation.record
    lines = [
        f"line {record.line}: {dataset_title(record.dataset)}, {record.method}, {record.weights}, "
        f"mIoU {miou_text(record)}, {record.images} images, {record.time}"
    ]
    if explanation.comparison is not None:
        heading = "nearest cell" if explanation.reasons else "in the table"
        lines.append(f"{heading}: {_cell_text(explanation.comparison, record)}")
    if explanation.reasons:
        lines += ["not in a table because", *(f"  {reason}" for reason in explanation.reasons)]
    else:
        lines.append("every setting is the published one")
    lines += _trap_lines("known traps among these settings", explanation.settings_traps)
    lines += _trap_lines("its number looks like that of a known trap", explanation.number_traps)
    return lines


def _cell_text(comparison: Comparison, record: Record) -> str:
    """A cell in words, with what was published for it."""
    cell = f"{comparison.table.title}, {comparison.row.vit} {comparison.row.system}, protocol {comparison.protocol}"
    number = comparison.published
    if number is None:
        return f"{cell}; nothing was published for it"
    text = f"{cell}; published {number.miou:g}"
    if record.mIoU is not None:
        text += f", this run {record.mIoU - number.miou:+.1f}"
    return f"{text} ({number.source})"


def _trap_lines(heading: str, known_traps: Sequence[Trap]) -> list[str]:
    """Traps in words: what they are, how large they were, what to do, and who says so."""
    if not known_traps:
        return []
    lines = [heading]
    for trap in known_traps:
        text = f"  {trap.trap}"
        if trap.miou is not None:
            text += f" ({trap.miou:g} in place of {trap.right_miou:g})"
        lines.append(f"{text}: {trap.remedy} [{trap.source}]")
    return lines

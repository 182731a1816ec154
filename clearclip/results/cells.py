"""Which record belongs in which cell of a table, and what stands in the cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import fmean

from clearclip.results.protocols import Difference, dataset_title, find_protocol, protocols
from clearclip.results.published_numbers import AVERAGE, PublishedNumber, find_published, find_reruns
from clearclip.results.record import Record
from clearclip.results.table_definitions import Row, Table, published_labels, tables

#: Notes on numbers, each by the mark that it begins with.
STATED = "* weights as stated by the user"
SECOND_HAND = "† not from the method's own paper or repository (second-hand)"
OWN_ROW = "‡ no published row: a method of the user's own, or other options of one"
NOTES = (STATED, SECOND_HAND, OWN_ROW)

#: Where weights may come from to fill a published cell.
_PUBLISHED_ORIGINS = ("published", "stated")


def row_differences(record: Record, row: Row, protocol: str) -> list[Difference]:
    """In what a run's weights and method differ from those of a row."""
    weights = record.facts["weights"]
    keys = ("clip_type", "vit_type") if row.clip_type else ("model", "tag")
    differences = []
    is_named = [weights.get(key) for key in keys] == list(row.weights.values())
    if not is_named or weights["origin"] not in _PUBLISHED_ORIGINS:
        measured = f"{record.weights or 'unknown'} ({weights['origin']})"
        differences.append(Difference("weights", measured, " ".join(row.weights.values())))
    label = protocol_label(row, record.dataset, protocol)
    if row.is_own != _is_own(record, protocol):
        owner = "none of your own" if row.is_own else "by code or options of your own"
        differences.append(Difference("method", f"{record.method}, {owner}", label))
    elif record.method != label:
        differences.append(Difference("method", record.method, label))
    return differences


def _is_own(record: Record, protocol: str) -> bool:
    """Whether no published row has a run's method: it is none of this package's, or has other options."""
    return has_own_code(record) or record.method not in _protocol_labels(record.dataset, protocol)


def has_own_code(record: Record) -> bool:
    """Whether code of the user's own took part in a run."""
    return "source" in record.facts["method"] or bool(record.facts.get("own code"))


def protocol_label(row: Row, dataset: str, protocol: str) -> str:
    """The label of a row's method with the options that a protocol gives it on a dataset."""
    return find_protocol(protocol, dataset).label(row.label)


def cell_differences(record: Record, row: Row, dataset: str, protocol: str) -> list[Difference]:
    """In what a run differs from what a cell of a table shows, to the last setting; empty where it belongs there.

    The reasons that a record itself has (:attr:`Record.fills_cells`) are not among them.
    """
    return row_differences(record, row, protocol) + find_protocol(protocol, dataset).differences(
        record.facts, row.settings_for(dataset), own_normalization=not row.clip_type
    )


def belongs(record: Record, row: Row, dataset: str, protocol: str) -> bool:
    """Whether a record is of a row's weights and method, and made on a dataset by a protocol, to the last setting."""
    # Names are compared first: most records are of other cells.
    if record.dataset != dataset or (protocol, dataset) not in protocols():
        return False
    # A row of the user's own shows what no published cell may.
    if not (record.is_complete if row.is_own else record.fills_cells):
        return False
    if record.method != protocol_label(row, dataset, protocol):
        return False
    return not cell_differences(record, row, dataset, protocol)


def protocol_of(record: Record) -> str:
    """The protocol by which a run was made, or "other", and whether images were skipped."""
    if record.remark:
        return "other"
    # A row may have been published with settings of its own.
    row_settings = [{}]
    for table in tables().values():
        for row in table.rows:
            if row.label == record.method and row.settings_for(record.dataset):
                row_settings.append(row.settings_for(record.dataset))
    name = "other"
    for (protocol_name, dataset), protocol in protocols().items():
        if dataset == record.dataset and any(protocol.matches(record.facts, settings) for settings in row_settings):
            name = protocol_name
            break
    return f"{name}, images skipped" if record.skipped else name


@dataclass(frozen=True)
class Cell:
    """One cell of a table: mIoU in percent, where it exists.

    Attributes:
        measured: here.
        published: by the authors, or by another source.
        reruns: who measured it again, independently → the number.
        stated: the measured weights are the published ones by the user's word only.
        record: the run that is shown.
        replaced: earlier runs of the same cell, which are not shown.
    """

    measured: float | None = None
    published: PublishedNumber | None = None
    reruns: Mapping[str, PublishedNumber] = field(default_factory=dict)
    stated: bool = False
    record: Record | None = None
    replaced: tuple[Record, ...] = ()

    @property
    def difference(self) -> float | None:
        """Measured minus published, in points."""
        if self.measured is None or self.published is None:
            return None
        return self.measured - self.published.miou

    @property
    def measured_mark(self) -> str:
        """The mark of a note on the measured number, or nothing."""
        return STATED[0] if self.stated else ""

    @property
    def published_mark(self) -> str:
        """The mark of a note on the published number, or nothing."""
        return SECOND_HAND[0] if self.published is not None and self.published.is_second_hand else ""

    @property
    def measured_text(self) -> str:
        """The measured number with its mark: ``80.9*``."""
        return "–" if self.measured is None else f"{self.measured:.1f}{self.measured_mark}"

    @property
    def published_text(self) -> str:
        """The published number with its mark, or nothing: ``80.9†``."""
        return "" if self.published is None else f"{self.published.miou:.1f}{self.published_mark}"

    def __str__(self) -> str:
        """``80.9 (80.9)``: measured (published)."""
        return f"{self.measured_text} ({self.published_text})" if self.published_text else self.measured_text


def make_cell(table: Table, row: Row, dataset: str, records: Iterable[Record], protocol: str) -> Cell:
    """A cell: of the runs that belong there, the one that began last."""
    published = find_published(table, row, dataset, protocol)
    reruns = find_reruns(row, dataset, protocol)
    runs = sorted(
        (record for record in records if belongs(record, row, dataset, protocol)),
        key=lambda record: (record.moment, record.line),
    )
    if not runs:
        return Cell(published=published, reruns=reruns)
    stated = runs[-1].facts["weights"]["origin"] == "stated"
    return Cell(runs[-1].mIoU, published, reruns, stated, runs[-1], tuple(runs[:-1]))


def fill_row(table: Table, row: Row, records: Iterable[Record], protocol: str) -> list[Cell]:
    """The cells of a row; behind them their mean, where the table has one."""
    records = list(records)
    cells = [make_cell(table, row, dataset, records, protocol) for dataset in table.datasets]
    if table.shows_mean:
        values = [cell.measured for cell in cells]
        mean = None if None in values else fmean(values)
        stated = any(cell.stated for cell in cells)
        cells.append(Cell(mean, find_published(table, row, AVERAGE, protocol), stated=stated))
    return cells


def headings(table: Table) -> list[str]:
    """The headings that belong to :func:`fill_row`."""
    titles = [dataset_title(dataset) for dataset in table.datasets]
    return [*titles, "average"] if table.shows_mean else titles


def own_rows(table: Table, records: Iterable[Record], protocol: str) -> list[Row]:
    """Rows for the runs of a table's weights and benchmarks by its protocol whose method no published row has."""
    rows: dict[tuple[str, str], Row] = {}
    for record in records:
        row = _own_row_of(table, record, protocol)
        if row is not None:
            rows.setdefault((row.label, row.vit), row)
    return list(rows.values())


def _own_row_of(table: Table, record: Record, protocol: str) -> Row | None:
    """The row of the user's own that a run makes in a table, or None."""
    if not table.own_rows or record.remark or record.dataset not in table.datasets:
        return None
    if not _is_own(record, protocol):
        return None
    weights = record.facts["weights"]
    for row in table.rows:
        if row.clip_type and (weights.get("clip_type"), weights.get("vit_type")) == (row.clip_type, row.vit):
            own = own_row(row, record.method, record.method)
            return own if belongs(record, own, record.dataset, protocol) else None
    return None


def fits_own_row(record: Record) -> bool:
    """Whether a run is in a table as a row of the user's own."""
    every_table = list(tables().values())
    every_table += [table.of_miniature() for table in tables().values() if table.miniature]
    protocol_names = [protocol for protocol, dataset in protocols() if dataset == record.dataset]
    for table in every_table:
        for protocol in protocol_names:
            if _own_row_of(table, record, protocol) is not None:
                return True
    return False


def own_row(row: Row, method: str, label: str) -> Row:
    """A row of a method that no published row has, with the weights of ``row``."""
    named = {"name": label, "clearclip": "", "method": method, "label": label}
    return replace(row, **named, published_as=(), settings={}, is_own=True)


@lru_cache
def _protocol_labels(dataset: str, protocol: str) -> frozenset[str]:
    """The labels that the methods of all tables' rows have on a dataset by a protocol."""
    how = protocols().get((protocol, dataset))
    return frozenset(how.label(label) for label in published_labels()) if how is not None else frozenset()


def notes_of(rows: Sequence[Row], cells: Iterable[Cell]) -> list[str]:
    """The notes whose marks stand in these rows and cells."""
    marks = {mark for cell in cells for mark in (cell.measured_mark, cell.published_mark)}
    if any(row.is_own for row in rows):
        marks.add(OWN_ROW[0])
    return [note for note in NOTES if note[0] in marks]


def replaced_remarks(table: Table, rows_and_cells: Iterable[tuple[Row, Sequence[Cell]]]) -> list[str]:
    """Which runs a table shows in place of earlier ones of the same cell."""
    remarks = []
    for row, cells in rows_and_cells:
        for dataset, cell in zip(table.datasets, cells, strict=False):
            if cell.replaced and cell.record is not None:
                earlier = ", ".join(f"{_miou(run)} of {run.time}" for run in cell.replaced)
                where = f"{row.vit} {row.system}, {dataset_title(dataset)}"
                remarks.append(f"{where}: {_miou(cell.record)} of {cell.record.time} is shown, not {earlier}")
    return remarks


def _miou(record: Record) -> str:
    return "n/a" if record.mIoU is None else f"{record.mIoU:.2f}"

"""What stands in the cells of a table: the measured number, the published one, re-runs, and their marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from clearclip.results.matching import belongs
from clearclip.results.protocols import dataset_title
from clearclip.results.published_numbers import AVERAGE, PublishedNumber, find_published, find_reruns
from clearclip.results.record import Record
from clearclip.results.table_definitions import Row, Table

#: Notes on numbers and rows, each by the mark that it begins with.
STATED = "* weights as stated by the user"
SECOND_HAND = "† not from the method's own paper or repository (second-hand)"
OWN_ROW = "‡ no published row: a method of the user's own, or other options of one"
NOTES = (STATED, SECOND_HAND, OWN_ROW)


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
        return STATED[0] * self.stated

    @property
    def published_mark(self) -> str:
        """The mark of a note on the published number, or nothing."""
        return SECOND_HAND[0] * (self.published is not None and self.published.is_second_hand)

    @property
    def measured_text(self) -> str:
        """The measured number with its mark: ``80.9*``."""
        if self.measured is None:
            return "–"
        return f"{self.measured:.1f}{self.measured_mark}"

    @property
    def published_text(self) -> str:
        """The published number with its mark, or nothing: ``80.9†``."""
        if self.published is None:
            return ""
        return f"{self.published.miou:.1f}{self.published_mark}"

    def __str__(self) -> str:
        """``80.9 (80.9)``: measured (published)."""
        if not self.published_text:
            return self.measured_text
        return f"{self.measured_text} ({self.published_text})"


#: A row of a table with its cells.
FilledRow = tuple[Row, list[Cell]]


def make_cell(table: Table, row: Row, dataset: str, records: Iterable[Record], protocol: str) -> Cell:
    """A cell: of the runs that belong there, the one that began last."""
    published = find_published(table, row, dataset, protocol)
    reruns = find_reruns(row, dataset, protocol)
    runs = in_order_of_time(record for record in records if belongs(record, row, dataset, protocol))
    if not runs:
        return Cell(published=published, reruns=reruns)
    # What is not shown is kept, so that a table can say over which runs it decided.
    *replaced, latest = runs
    stated = latest.facts["weights"]["origin"] == "stated"
    return Cell(latest.mIoU, published, reruns, stated, latest, tuple(replaced))


def in_order_of_time(records: Iterable[Record]) -> list[Record]:
    """Records by when their runs began; of those that began in the same second, by the order of their lines."""
    return sorted(records, key=lambda record: (record.moment, record.line))


def fill_row(table: Table, row: Row, records: Iterable[Record], protocol: str) -> list[Cell]:
    """The cells of a row; behind them their mean, where the table has one."""
    records = list(records)
    cells = [make_cell(table, row, dataset, records, protocol) for dataset in table.datasets]
    # The mean is the last cell, and of no dataset.
    if table.shows_mean:
        cells.append(_mean_cell(cells, find_published(table, row, AVERAGE, protocol)))
    return cells


def _mean_cell(cells: Sequence[Cell], published: PublishedNumber | None) -> Cell:
    """The mean of a row, where all its cells were measured."""
    # A mean of some columns would look like one of all.
    values = [cell.measured for cell in cells if cell.measured is not None]
    is_whole = len(values) == len(cells)
    stated = is_whole and any(cell.stated for cell in cells)
    return Cell(fmean(values) if is_whole else None, published, stated=stated)


def fill_table(table: Table, records: Iterable[Record], protocol: str) -> list[FilledRow]:
    """All rows of a table with their cells."""
    records = list(records)
    return [(row, fill_row(table, row, records, protocol)) for row in table.rows]


def headings(table: Table) -> list[str]:
    """The headings that belong to :func:`fill_row`."""
    titles = [dataset_title(dataset) for dataset in table.datasets]
    if table.shows_mean:
        titles.append("average")
    return titles


def marked_name(row: Row, name: str) -> str:
    """A row's name, with a mark where it is no published row."""
    return name + OWN_ROW[0] * row.is_own


def notes_of(rows: Iterable[FilledRow]) -> list[str]:
    """The notes whose marks stand in these rows."""
    marks = set()
    for row, cells in rows:
        marks.add(marked_name(row, ""))
        for cell in cells:
            marks |= {cell.measured_mark, cell.published_mark}
    return [note for note in NOTES if note[0] in marks]


def replaced_remarks(table: Table, rows: Iterable[FilledRow]) -> list[str]:
    """Which runs a table shows in place of earlier ones of the same cell."""
    remarks = []
    for row, cells in rows:
        # The last cell may be the mean, which is of no dataset.
        for dataset, cell in zip(table.datasets, cells, strict=False):
            if cell.record is not None and cell.replaced:
                where = f"{row.vit} {row.system}, {dataset_title(dataset)}"
                earlier = ", ".join(f"{miou_text(run)} of {run.time}" for run in cell.replaced)
                remarks.append(f"{where}: {miou_text(cell.record)} of {cell.record.time} is shown, not {earlier}")
    return remarks


def miou_text(record: Record) -> str:
    """The mIoU of a run to two decimals; n/a where no pixel counted."""
    if record.mIoU is None:
        return "n/a"
    return f"{record.mIoU:.2f}"

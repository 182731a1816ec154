"""Which sheets a workbook has: tables with measured numbers, the runs, the classes, and the other tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from openpyxl.worksheet.worksheet import Worksheet

from clearclip.results.cells import fill_table
from clearclip.results.classes_sheet import write_classes
from clearclip.results.matching import protocol_of
from clearclip.results.own_rows import own_rows
from clearclip.results.protocols import dataset_title, protocol_names
from clearclip.results.record import Record
from clearclip.results.runs_sheet import write_runs
from clearclip.results.table_definitions import Table, every_table
from clearclip.results.table_sheet import write_table
from clearclip.results.word_sheet import write_word_table
from clearclip.results.word_tables import WordTable


@dataclass(frozen=True)
class Sheet:
    """A sheet that is to be made.

    Attributes:
        title: its name, as long as it may be.
        write: fills an empty worksheet.
        has_measured: it is a table that shows a measured number.
    """

    title: str
    write: Callable[[Worksheet], None]
    has_measured: bool = False


def make_sheets(records: Sequence[Record], remarks: Sequence[str], studies: Sequence[WordTable] = ()) -> list[Sheet]:
    """All sheets of these records and studies, in their order.

    Args:
        records, remarks: as :func:`~clearclip.results.records.read_records` gives them.
        studies: of words and thresholds.
    """
    measured_tables: list[Sheet] = []
    empty_tables: list[Sheet] = []
    for table, protocol in _shown_tables(records):
        table_sheet = make_table_sheet(table, protocol, records)
        if table_sheet.has_measured:
            measured_tables.append(table_sheet)
        else:
            empty_tables.append(table_sheet)
    records_by_dataset: dict[str, list[Record]] = {}
    for record in records:
        records_by_dataset.setdefault(record.dataset, []).append(record)
    class_sheets: list[Sheet] = []
    for dataset, runs in records_by_dataset.items():
        write = partial(write_classes, dataset=dataset, records=runs)
        class_sheets.append(Sheet(f"IoU {dataset_title(dataset)}", write))
    runs_sheet = Sheet("runs", partial(write_runs, records=records, remarks=remarks))
    word_sheets = [Sheet(f"words {study.dataset}", partial(write_word_table, study=study)) for study in studies]
    # What was measured comes first; tables with published numbers only are for reference.
    return [*measured_tables, runs_sheet, *word_sheets, *class_sheets, *empty_tables]


def _shown_tables(records: Sequence[Record]) -> list[tuple[Table, str]]:
    """The tables and the protocols by which they are shown: ClearCLIP's, and those by which runs were made."""
    first, *further = protocol_names()
    run_datasets = {record.dataset for record in records}
    run_protocols = {protocol_of(record) for record in records}
    selected: list[tuple[Table, str]] = []
    for table in every_table():
        # A table with published numbers is worth a sheet before anything was measured.
        if not table.is_published and run_datasets.isdisjoint(table.datasets):
            continue
        selected.append((table, first))
        # The other protocols are those of papers, which say nothing about datasets of this package.
        if table.any_protocol and table.is_published:
            selected += [(table, protocol) for protocol in further if protocol in run_protocols]
    return selected


def make_table_sheet(table: Table, protocol: str, records: Sequence[Record]) -> Sheet:
    """The sheet of a table by a protocol, with the user's own methods as its last rows."""
    table = table.with_rows([*table.rows, *own_rows(table, records, protocol)])
    rows = fill_table(table, records, protocol)
    has_measured = any(cell.measured is not None for _, cells in rows for cell in cells)
    heading = table.title
    if protocol != protocol_names()[0]:
        heading += f", protocol {protocol}"
    write = partial(write_table, table=table, heading=heading, rows=rows)
    return Sheet(sheet_name(table, protocol), write, has_measured)


def sheet_name(table: Table, protocol: str) -> str:
    """The title of a table's sheet."""
    if protocol == protocol_names()[0]:
        return table.title
    return f"{table.title}, {protocol}"

"""Rows of the user's own: methods that no published row has, in the tables beside the published ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from clearclip.results.matching import belongs, has_weights, is_own_run
from clearclip.results.protocols import protocols
from clearclip.results.record import Record
from clearclip.results.table_definitions import Row, Table, every_table


def own_row(row: Row, *, method: str, label: str) -> Row:
    """A row of a method that no published row has, with the weights of ``row``.

    Args:
        row: a row of the same table.
        method: the method, as ``build_method`` takes it.
        label: the method's label, which is the row's name as well.
    """
    # Nothing was published for it, and no settings but the protocol's are its own.
    unpublished = replace(row, clearclip="", published_as=(), settings={}, is_own=True)
    return replace(unpublished, name=label, method=method, label=label)


def own_rows(table: Table, records: Iterable[Record], protocol: str) -> list[Row]:
    """A row for every method of the user's own that was run with a table's weights, on its benchmarks, by a protocol.

    Each method has one row for each of its weights, in the order of the records.
    """
    rows: dict[tuple[str, str], Row] = {}
    for record in records:
        row = own_row_of(table, record, protocol)
        if row is not None:
            rows.setdefault((row.label, row.vit), row)
    return list(rows.values())


def own_row_of(table: Table, record: Record, protocol: str) -> Row | None:
    """The row of the user's own that a run makes in a table; None where it makes none."""
    if not table.own_rows or not record.is_complete or record.dataset not in table.datasets:
        return None
    if not is_own_run(record, protocol):
        return None
    for row in table.rows:
        if row.clip_type and has_weights(record, row):
            # The weights are found; whether every setting is the protocol's decides.
            candidate = own_row(row, method=record.method, label=record.method)
            return candidate if belongs(record, candidate, record.dataset, protocol) else None
    return None


def is_in_own_row(record: Record) -> bool:
    """Whether any table shows a run in a row of the user's own."""
    # Only protocols that say something about the dataset have cells for it.
    names = [protocol for protocol, dataset in protocols() if dataset == record.dataset]
    for table in every_table():
        for protocol in names:
            if own_row_of(table, record, protocol) is not None:
                return True
    return False

"""Which rows of a table are meant: its own by their names, or methods that no published row has."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from clearclip.methods import METHODS, Method, build_method
from clearclip.results.own_rows import own_row
from clearclip.results.table_definitions import Row, Table, bundled_tables
from clearclip.utils.errors import UserError

#: The weights with which methods of the user's own are evaluated: CLIP's, and those that stand in for them.
_PLAIN_WEIGHTS = ("CLIP", bundled_tables().weights["clip_type"])


def choose_rows(table: Table, names: Sequence[str] | None, sizes: Sequence[str] | None) -> list[Row]:
    """The rows that are named, in the order of the table; behind them methods that no published row has.

    Args:
        table: the table.
        names: systems ("MaskCLIP", "MaskCLIP + ClearCLIP"), the methods of such rows ("ClearCLIP"), methods that
            ``--import`` registered, or methods with options as JSON objects; None takes all rows of the table.
        sizes: of the image tower; None takes those that the table shows.

    Raises:
        UserError: an unknown name, or a table without such a row.
    """
    systems_of_table = {row.system for row in table.rows}
    systems: list[str] = []
    methods: list[tuple[str, Method]] = []
    for name in names or ():
        method = _own_method(name)
        # The paper calls it "CLIP + ClearCLIP"; who asks for ClearCLIP means that row.
        described = method or _registered_method(name, systems_of_table)
        published = _row_of_method(table, described)
        if method is None or published is not None:
            systems.append(published.system if published is not None else name)
        else:
            methods.append((name, method))
    rows: list[Row] = []
    if names is None:
        rows += table.select_rows(None, sizes)
    elif systems or not methods:
        rows += table.select_rows(systems, sizes)
    # Behind the published rows, since what is compared with them comes last in a table.
    rows += _rows_of_methods(table, methods, sizes)
    if not rows:
        raise UserError(f"the table {table.name} has no such row; choose other --rows or --vit, or another --table")
    return rows


def _own_method(name: str) -> Method | None:
    """The method that a JSON object describes, or that is none of this package's; None for any other name."""
    if name.lstrip().startswith("{"):
        return build_method(name)
    # A sum such as "Neighbours + RCS" is the user's own if a term of it is.
    for term in name.split(" + "):
        if term in METHODS and not METHODS[term].__module__.startswith("clearclip."):
            return build_method(name)
    return None


def _registered_method(name: str, systems_of_table: Collection[str]) -> Method | None:
    """The method of this name, where no row of the table is called like it."""
    if name in systems_of_table or name not in METHODS:
        return None
    return build_method(name)


def _row_of_method(table: Table, method: Method | None) -> Row | None:
    """The row of a table that computes a method with CLIP's weights: a JSON object may describe a published one."""
    for row in table.rows:
        if method is not None and row.clip_type in _PLAIN_WEIGHTS and build_method(row.method) == method:
            return row
    return None


def _rows_of_methods(table: Table, methods: Sequence[tuple[str, Method]], sizes: Sequence[str] | None) -> list[Row]:
    """Rows of methods that the table does not have, for each size of its plain weights."""
    # All rows of a size have the same weights, so that any of them stands for these.
    row_by_size = {row.vit: row for row in table.select_rows(None, sizes) if row.clip_type in _PLAIN_WEIGHTS}
    rows: list[Row] = []
    for row in row_by_size.values():
        rows += [own_row(row, method=name, label=method.label) for name, method in methods]
    return rows

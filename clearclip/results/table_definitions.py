"""The tables, as data (``tables.json``): which rows and benchmarks each one has. A new table is one entry there;
published numbers of new rows are added to ``published.csv``, and settings of a new protocol to ``protocols.csv``.

``bundled_tables.json`` says which of them are also evaluated with the model and the benchmark of this package.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from clearclip.results.data_files import read_json_file
from clearclip.utils.errors import UserError


# By keyword alone: its first six fields are all texts, and in another order nobody would notice.
@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
        name: the system, the switches of an ablation, or the tag of a backbone's weights.
        clearclip: "yes", "no", or "" where the column has no meaning.
        clip_type, vit: whose weights, and their size; for a backbone "", and its name in OpenCLIP.
        method: how the last blocks are computed: a name, or a JSON object, as ``build_method`` takes them.
        label: the label of that method, by which records are known.
        published_as: further systems under which published numbers of this row are listed.
        settings: dataset → options of the model that this row was published with, where they are not its protocol's.
        is_own: the user added it: a method of their own, or options that no published row has.
    """

    name: str
    clearclip: str
    clip_type: str
    vit: str
    method: str
    label: str
    published_as: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_own: bool = False

    @property
    def weights(self) -> dict[str, str]:
        """The options of a model that name the row's weights."""
        # A row of a backbone is named by the tag of its weights, and has its model's name in the column of sizes.
        if not self.clip_type:
            return {"model_name": self.vit, "pretrained": self.name}
        return {"clip_type": self.clip_type, "vit_type": self.vit}

    @property
    def system(self) -> str:
        """The name, and whether ClearCLIP is added."""
        if self.clearclip == "yes":
            return f"{self.name} + ClearCLIP"
        return self.name

    def settings_for(self, dataset: str) -> Mapping[str, Any]:
        """Options of the model on a dataset that are not its protocol's."""
        return self.settings.get(dataset, {})


@dataclass(frozen=True)
class Table:
    """A table of rows × benchmarks.

    Attributes:
        name: what ``--table`` takes.
        title, note: its title, and what it shows in a line.
        datasets: its columns.
        rows: its rows, for every size of the image tower.
        averaged: whether it shows the mean of each row.
        shown_sizes: the sizes that are evaluated where none is named; empty: all.
        numbers_of: the tables of ``published.csv`` whose numbers stand in it.
        own_rows: whether methods of the user's own become rows of it.
        any_protocol: whether it may be evaluated by other protocols than ClearCLIP's.
        is_published: whether anybody else has published numbers of its weights and datasets. A table of the bundled
            model shows measured numbers only, and has a sheet where there are any.
        remark: what is said below it when it is printed.
    """

    name: str
    title: str
    note: str
    datasets: tuple[str, ...]
    rows: tuple[Row, ...]
    averaged: bool
    shown_sizes: tuple[str, ...]
    numbers_of: tuple[str, ...]
    own_rows: bool
    any_protocol: bool
    is_published: bool = True
    remark: str = ""

    def with_rows(self, rows: Sequence[Row]) -> Table:
        """The same table with these rows."""
        return replace(self, rows=tuple(rows))

    def with_datasets(self, names: Sequence[str] | None) -> Table:
        """The same table with these columns only; None keeps all.

        Raises:
            UserError: an unknown name; says which one may have been meant.
        """
        if names is None:
            return self
        _check_names("dataset", names, self.datasets)
        return replace(self, datasets=tuple(name for name in self.datasets if name in names))

    @property
    def shows_mean(self) -> bool:
        """Whether the mean of each row is shown: one column is its own mean."""
        return self.averaged and len(self.datasets) > 1

    def select_rows(self, systems: Sequence[str] | None = None, sizes: Sequence[str] | None = None) -> list[Row]:
        """The rows that are named.

        Args:
            systems: such as "MaskCLIP", which is the plain row only, and "MaskCLIP + ClearCLIP"; None takes all.
            sizes: of the image tower; None takes :attr:`shown_sizes`.

        Raises:
            UserError: an unknown name; says which one may have been meant.
        """
        rows = list(self.rows)
        # Large towers take hours; some tables show them where they are asked for.
        if sizes is None:
            sizes = self.shown_sizes or [row.vit for row in rows]
        _check_names("vit", sizes, [row.vit for row in rows])
        rows = [row for row in rows if row.vit in sizes]
        if systems is None:
            return rows
        _check_names("row", systems, [row.system for row in rows])
        return [row for row in rows if row.system in systems]


def _check_names(noun: str, names: Sequence[str], choices: Sequence[str]) -> None:
    """Raise a UserError for names that are no choices: it lists them all, and the one that may have been meant."""
    # Rows of several sizes have the same names.
    choices = list(dict.fromkeys(choices))
    unknown = [name for name in names if name not in choices]
    if not unknown:
        return
    message = f"unknown {noun} {', '.join(map(repr, unknown))}; this table has {', '.join(choices)}"
    likely = difflib.get_close_matches(unknown[0], choices, 1)
    if likely:
        message += f"; did you mean {likely[0]}?"
    raise UserError(message)


def _read_row(entry: Mapping[str, Any], vit: str) -> Row:
    """A row as ``tables.json`` has it, for a size of the image tower."""
    # A method is a name, or an object with options, as command lines write them.
    method = entry["method"]
    return Row(
        name=entry["name"],
        clearclip=entry.get("clearclip", ""),
        clip_type=entry.get("clip_type", ""),
        vit=entry.get("vit", vit),
        method=method if isinstance(method, str) else json.dumps(method),
        # An object with options has no name that could be its label.
        label=entry["label"] if isinstance(method, dict) else entry.get("label", method),
        published_as=tuple(entry.get("published_as", ())),
        settings=entry.get("settings", {}),
    )


def _read_table(entry: Mapping[str, Any]) -> Table:
    """A table as ``tables.json`` has it. Rows without a size of their own come once for each of the table's sizes."""
    rows: list[Row] = []
    # A table of other backbones has no sizes: each of its rows names its own tower.
    for size in entry["sizes"] or [""]:
        rows += [_read_row(row, size) for row in entry["rows"]]
    return Table(
        name=entry["name"],
        title=entry["title"],
        note=entry["note"],
        datasets=tuple(entry["datasets"]),
        rows=tuple(rows),
        averaged=entry["averaged"],
        shown_sizes=tuple(entry["shown_sizes"]),
        numbers_of=tuple(entry["numbers_of"]),
        own_rows=entry["own_rows"],
        any_protocol=entry["any_protocol"],
    )


@lru_cache
def tables() -> dict[str, Table]:
    """All tables by their names; the first is the one that is evaluated where none is named."""
    return {entry["name"]: _read_table(entry) for entry in read_json_file("tables.json")}


@dataclass(frozen=True)
class BundledTables:
    """How tables are evaluated with the model and the benchmark that come with the package (``bundled_tables.json``).

    Attributes:
        name: of the model; the option of ``eval_all.py`` has the same.
        datasets: the columns of such a table.
        in_place_of: the ``clip_type`` and ``vit`` whose rows it takes.
        weights: the model's own.
        tables: the tables that its workbook shows; the first is the one that is evaluated where none is named.
        remarks: table → what is said below it.
    """

    name: str
    datasets: Sequence[str]
    in_place_of: Mapping[str, str]
    weights: Mapping[str, str]
    tables: Sequence[str]
    remarks: Mapping[str, str]

    def table(self, name: str) -> Table:
        """A table with this model and benchmark, and the methods that it compares with published weights.

        Raises:
            UserError: it compares weights only.
        """
        published = tables()[name]
        rows: list[Row] = []
        for row in published.rows:
            if {"clip_type": row.clip_type, "vit": row.vit} == self.in_place_of:
                # Settings are those with which numbers of the published datasets were measured.
                rows.append(replace(row, clip_type=self.weights["clip_type"], vit=self.weights["vit"], settings={}))
        if not rows:
            raise UserError(f"the table {name} has no row of the {self.name}'s; leave --{self.name} out")
        return replace(
            published,
            title=f"{self.name}, {published.title}",
            datasets=tuple(self.datasets),
            rows=tuple(rows),
            shown_sizes=(),
            is_published=False,
            remark=self.remarks.get(name, ""),
        )


@lru_cache
def bundled_tables() -> BundledTables:
    """The tables of the bundled model."""
    return BundledTables(**read_json_file("bundled_tables.json"))


def find_table(name: str | None = None, bundled: bool = False) -> Table:
    """A table by its name.

    Args:
        name: None takes the first.
        bundled: with the model and the benchmark that come with the package.
    """
    if bundled:
        return bundled_tables().table(name or bundled_tables().tables[0])
    return tables()[name or next(iter(tables()))]


@lru_cache
def every_table() -> tuple[Table, ...]:
    """All tables, and those of the bundled model that its workbook shows."""
    return (*tables().values(), *map(bundled_tables().table, bundled_tables().tables))


@lru_cache
def published_labels() -> frozenset[str]:
    """The labels of the methods of all tables' rows."""
    return frozenset(row.label for table in tables().values() for row in table.rows)


#: The methods that are compared where none is named: CLIP, what came before ClearCLIP, and what came after it.
FAMILY = tuple(dict.fromkeys(row.name for row in tables()["family"].rows))

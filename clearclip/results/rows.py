"""The tables of the paper: their rows as weights and methods, their datasets, and the published numbers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from itertools import product

from clearclip.methods import ATTENTIONS, LastBlock, Method, build_method
from clearclip.methods.family import FAMILY
from clearclip.utils.errors import UserError

WITHOUT_BACKGROUND = ("voc20", "context59", "coco_stuff164k", "city_scapes", "ade20k")
WITH_BACKGROUND = ("voc21", "context60", "coco_object")
BENCHMARKS = (*WITH_BACKGROUND, *WITHOUT_BACKGROUND)
VITS = ("ViT-B/16", "ViT-L/14")
MINIATURE_VIT = "ViT-Ti/8"
TABLES = ("benchmarks", "2", "background", "ablation", "family")

#: The systems of table 2: what they are called, their weights and their method without ClearCLIP.
SYSTEMS = {
    "CLIP": ("CLIP", "CLIP"),
    "BLIP": ("BLIP", "CLIP"),
    "OpenCLIP": ("OpenCLIP", "CLIP"),
    "MetaCLIP": ("MetaCLIP", "CLIP"),
    "MaskCLIP": ("CLIP", "MaskCLIP"),
    "SCLIP": ("CLIP", "SCLIP"),
    "GEM": ("CLIP", "GEM"),
}


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: the system, or the switches of an ablation.
        clearclip: "yes", "no", or "" where the column has no meaning.
        clip_type, vit: whose weights, and their size.
        method: how the last blocks are computed.
    """

    name: str
    clearclip: str
    clip_type: str
    vit: str
    method: Method

    @property
    def system(self) -> str:
        """The name, and whether ClearCLIP is added."""
        return self.name + (" + ClearCLIP" if self.clearclip == "yes" else "")

    @property
    def label(self) -> str:
        """The row in a line of text."""
        return f"{self.system}, {self.vit}"

    def prob_thd(self, dataset: str) -> float | None:
        """The threshold where it is not the config's: vanilla CLIP on VOC21 was published with another one."""
        return 0.2 if dataset == "voc21" and (self.name, self.clearclip) == ("CLIP", "no") else None


def table_rows(table: str, miniature: bool = False) -> list[Row]:
    """The rows of a table: "2", "background", "ablation", "family" or "benchmarks" (ClearCLIP alone).

    Args:
        table: which.
        miniature: with the bundled model in place of the checkpoints: the rows that are methods, not other weights.
    """
    vits = (MINIATURE_VIT,) if miniature else VITS
    own = "Miniature" if miniature else "CLIP"
    if table == "benchmarks":
        return [Row("CLIP", "yes", own, vit, LastBlock()) for vit in vits]
    if table == "ablation":
        switches = product(vits, (True, False), (True, False), ATTENTIONS)
        return [
            Row(ablation_name(attention, residual, ffn), "", own, vit, LastBlock(attention, residual, ffn))
            for vit, residual, ffn, attention in switches
        ]
    if table == "family":
        methods = [build_method(name) for name in FAMILY]
        return [Row(method.label, "", own, vit, method) for vit, method in product(vits, methods)]
    rows = []
    for vit, (name, (weights, base)), added in product(vits, SYSTEMS.items(), ("no", "yes")):
        if weights == "CLIP" or not miniature:
            method = build_method(f"{base} + ClearCLIP" if added == "yes" else base)
            rows.append(Row(name, added, own if weights == "CLIP" else weights, vit, method))
    return rows


def ablation_name(attention: str, residual: bool, ffn: bool) -> str:
    """``qq, no residual, ffn``"""
    return f"{attention}, {'residual' if residual else 'no residual'}, {'ffn' if ffn else 'no ffn'}"


def table_datasets(table: str, miniature: bool = False) -> tuple[str, ...]:
    """The columns of a table."""
    if miniature:
        return ("miniature",)
    return {"benchmarks": BENCHMARKS, "family": BENCHMARKS, "background": WITH_BACKGROUND}.get(
        table, WITHOUT_BACKGROUND
    )


def select_rows(table: str, miniature: bool, names: Sequence[str] | None, vits: Sequence[str] | None) -> list[Row]:
    """The rows of a table, narrowed.

    Args:
        table, miniature: see :func:`table_rows`.
        names: systems ("MaskCLIP"), with or without " + ClearCLIP"; None takes all.
        vits: sizes; None takes all, but ViT-B/16 only for "benchmarks", "ablation" and "family".

    Raises:
        UserError: an unknown name; lists the valid ones.
    """
    rows = table_rows(table, miniature)
    if vits is None and table in ("benchmarks", "ablation", "family"):
        vits = [rows[0].vit]
    if vits is not None:
        _check_known("vit", vits, {row.vit for row in rows})
        rows = [row for row in rows if row.vit in vits]
    if names is not None:
        _check_known("row", names, {name for row in rows for name in (row.system, row.name)})
        # "CLIP" is both CLIP and CLIP + ClearCLIP; "CLIP + ClearCLIP" is only the latter.
        rows = [row for row in rows if row.name in names or row.system in names]
    return rows


def select_datasets(table: str, miniature: bool, names: Sequence[str] | None) -> tuple[str, ...]:
    """The datasets of a table, narrowed.

    Raises:
        UserError: an unknown name; lists the valid ones.
    """
    known = table_datasets(table, miniature)
    if names is None:
        return known
    _check_known("dataset", names, set(known))
    return tuple(name for name in known if name in names)


def _check_known(what: str, names: Sequence[str], known: set[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"unknown {what} {', '.join(map(repr, unknown))}; this table has {', '.join(sorted(known))}")


@lru_cache
def published() -> dict[tuple[str, str, str, str, str, str], tuple[float, str]]:
    """(table, protocol, vit, row, clearclip, dataset) → mIoU in percent, and its source."""
    text = resources.files("clearclip.results").joinpath("published.csv").read_text(encoding="utf-8")
    return {
        (r["table"], r["protocol"], r["vit"], r["row"], r["clearclip"], r["dataset"]): (float(r["miou"]), r["source"])
        for r in csv.DictReader(text.splitlines())
    }


def published_value(table: str, row: Row, dataset: str, protocol: str = "clearclip") -> float | None:
    """The mIoU of a cell that was published under a protocol, in percent."""
    tables = {"benchmarks": ("background", "2"), "family": ("family", "background", "2")}.get(table, (table,))
    if table == "family":  # whose rows have other names in the paper's tables
        known = ("CLIP", "yes") if row.name == "ClearCLIP" else (row.name, "no")
        row = replace(row, name=known[0], clearclip=known[1])
        if row.prob_thd(dataset) is not None:  # published with a threshold of its own, and measured without
            return None
    found = (published().get((name, protocol, row.vit, row.name, row.clearclip, dataset)) for name in tables)
    return next((value[0] for value in found if value is not None), None)

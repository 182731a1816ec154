"""The tables of the paper: their rows as settings, their published numbers, and which run belongs where."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from itertools import product
from statistics import fmean
from typing import Any

from clearclip.checkpoints import VIT_TYPES
from clearclip.last_block import ATTENTIONS
from clearclip.methods import MODEL_TYPES

WITHOUT_BACKGROUND = ("voc20", "context59", "coco_stuff164k", "city_scapes", "ade20k")
WITH_BACKGROUND = ("voc21", "context60", "coco_object")
BENCHMARKS = (*WITH_BACKGROUND, *WITHOUT_BACKGROUND)
MINIATURE_VIT = "ViT-Ti/8"

#: The systems of table 2: what they are called, their weights and their method without ClearCLIP.
SYSTEMS = {
    "CLIP": ("CLIP", "vanilla"),
    "BLIP": ("BLIP", "vanilla"),
    "OpenCLIP": ("OpenCLIP", "vanilla"),
    "MetaCLIP": ("MetaCLIP", "vanilla"),
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
        vit: one of VIT_TYPES, or the miniature's.
        options: of the segmentor.
    """

    name: str
    clearclip: str
    vit: str
    options: dict[str, Any] = field(hash=False)

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.name}{' + ClearCLIP' if self.clearclip == 'yes' else ''}, {self.vit}"


def table_rows(table: str, miniature: bool = False) -> list[Row]:
    """The rows of a table: "2", "background", "ablation" or "benchmarks" (ClearCLIP alone).

    Args:
        table: which.
        miniature: with the bundled model in place of the checkpoints: the rows that are methods, not other weights.
    """
    vits = (MINIATURE_VIT,) if miniature else VIT_TYPES
    clip_type = "Miniature" if miniature else "CLIP"
    if table == "benchmarks":
        return [_system_row("CLIP", True, vit, clip_type) for vit in vits]
    if table == "ablation":
        rows = []
        for vit, residual, ffn, attention in product(vits, (True, False), (True, False), ATTENTIONS):
            options = dict(clip_type=clip_type, vit_type=vit, attention=attention, residual=residual, ffn=ffn)
            rows.append(Row(ablation_name(attention, residual, ffn), "", vit, options))
        return rows
    rows = []
    for vit, (name, (weights, _)), clearclip in product(vits, SYSTEMS.items(), (False, True)):
        if not (miniature and weights != "CLIP"):
            rows.append(_system_row(name, clearclip, vit, clip_type if miniature else weights))
    return rows


def _system_row(name: str, clearclip: bool, vit: str, clip_type: str) -> Row:
    model_type = SYSTEMS[name][1]
    if clearclip and model_type == "vanilla":
        model_type = "ClearCLIP"
    options = dict(clip_type=clip_type, vit_type=vit, model_type=model_type, ignore_residual=clearclip)
    return Row(name, "yes" if clearclip else "no", vit, options)


def ablation_name(attention: str, residual: bool, ffn: bool) -> str:
    """``qq, no residual, ffn``"""
    return f"{attention}, {'residual' if residual else 'no residual'}, {'ffn' if ffn else 'no ffn'}"


def table_datasets(table: str, miniature: bool = False) -> tuple[str, ...]:
    """The columns of a table."""
    if miniature:
        return ("miniature",)
    return {"benchmarks": BENCHMARKS, "background": WITH_BACKGROUND}.get(table, WITHOUT_BACKGROUND)


def row_options(row: Row, dataset: str) -> dict[str, Any]:
    """The options of a row on one dataset. Vanilla CLIP on VOC21 was published with another threshold."""
    if dataset == "voc21" and row.name == "CLIP" and row.clearclip == "no":
        return {**row.options, "prob_thd": 0.2}
    return row.options


TABLES = ("benchmarks", "2", "background", "ablation")


@lru_cache
def published() -> dict[tuple[str, str, str, str, str], tuple[float, str]]:
    """(table, vit, row, clearclip, dataset) → mIoU in percent, and its source."""
    text = resources.files("clearclip.reports").joinpath("published.csv").read_text(encoding="utf-8")
    return {
        (r["table"], r["vit"], r["row"], r["clearclip"], r["dataset"]): (float(r["miou"]), r["source"])
        for r in csv.DictReader(text.splitlines())
    }


def published_value(table: str, row: Row, dataset: str) -> float | None:
    """The published mIoU of a cell, in percent."""
    tables = ("background", "2") if table == "benchmarks" else (table,)
    found = (published().get((name, row.vit, row.name, row.clearclip, dataset)) for name in tables)
    return next((value[0] for value in found if value is not None), None)


def method_key(attention: str, residual: bool, ffn: bool) -> tuple[str, bool, bool]:
    """What a method computes. GEM has no FFN to keep."""
    return attention, residual, ffn and attention != "gem"


def row_method(row: Row) -> tuple[str, bool, bool]:
    """The :func:`method_key` of a row."""
    options = row.options
    if "attention" in options:
        return method_key(options["attention"], options["residual"], options["ffn"])
    keep = not options["ignore_residual"]
    return method_key(MODEL_TYPES[options["model_type"]], keep, keep)


def measured_value(runs: Iterable[dict[str, Any]], row: Row, dataset: str) -> float | None:
    """The mIoU of the latest complete run of a row on a dataset, in percent; None where there is none."""
    found = None
    for run in runs:
        settings = run["settings"]
        fits = (
            run["dataset"] == dataset
            and run["CLIP"] == row.options["clip_type"]
            and run["VIT"] == row.vit
            and method_key(settings["attention"], settings["residual"], settings["ffn"]) == row_method(row)
            and settings["alpha"] == 1
            and settings["limit"] is None
        )
        if fits:
            found = run["mIoU"]
    return found


@dataclass(frozen=True)
class Cell:
    """One cell: measured and published mIoU in percent, where they exist."""

    measured: float | None
    published: float | None

    @property
    def difference(self) -> float | None:
        """Measured minus published, in points."""
        if self.measured is None or self.published is None:
            return None
        return self.measured - self.published


def fill_row(table: str, row: Row, datasets: tuple[str, ...], runs: list[dict[str, Any]]) -> list[Cell]:
    """The cells of a row, and behind them their average (measured only where the row is complete)."""
    cells = [Cell(measured_value(runs, row, name), published_value(table, row, name)) for name in datasets]
    if len(datasets) == 1 or table == "benchmarks":
        return cells
    measured = [cell.measured for cell in cells]
    average = None if None in measured else fmean(measured)
    return [*cells, Cell(average, published_value(table, row, "average"))]


def columns(table: str, datasets: tuple[str, ...]) -> list[str]:
    """The headings that belong to :func:`fill_row`."""
    return [*datasets] if len(datasets) == 1 or table == "benchmarks" else [*datasets, "average"]


def to_markdown(table: str, rows: list[Row], datasets: tuple[str, ...], runs: list[dict[str, Any]]) -> str:
    """A table for a README: measured, and the published figure in brackets."""
    headings = columns(table, datasets)
    lines = [f"| ViT | system | ClearCLIP | {' | '.join(headings)} |", "|---|---|---|" + "---:|" * len(headings)]
    for row in rows:
        cells = [format_cell(cell) for cell in fill_row(table, row, datasets, runs)]
        lines.append(f"| {row.vit} | {row.name} | {row.clearclip} | {' | '.join(cells)} |")
    return "\n".join(lines)


def format_cell(cell: Cell) -> str:
    """``80.9 (80.9)``: measured (published)."""
    measured = "–" if cell.measured is None else f"{cell.measured:.1f}"
    return measured if cell.published is None else f"{measured} ({cell.published:.1f})"

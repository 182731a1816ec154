"""Which measured run belongs in which cell, and a table as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from mmengine.config import Config

from clearclip.evaluation.config import load_config, model_settings, run_identity
from clearclip.identity import published_checkpoint
from clearclip.methods import build_method
from clearclip.results.protocols import PROTOCOLS, protocol_overrides
from clearclip.results.rows import BENCHMARKS, Row, published_value
from clearclip.settings import ModelSettings

#: Published runs use fp16 on a GPU; fp32 gives the same numbers on any device.
PRECISIONS = ("fp16", "fp32")


def config_path(root: Path, dataset: str) -> Path:
    """The config of a benchmark."""
    return root / "config" / f"cfg_{dataset}.py"


def row_settings(row: Row, dataset: str, cfg: Config) -> ModelSettings:
    """The options of a row's model: the config's, with the row's weights, method and threshold."""
    thd = row.prob_thd(dataset)
    changed = {} if thd is None else {"prob_thd": thd}
    return replace(model_settings(cfg), clip_type=row.clip_type, vit_type=row.vit, method=row.method, **changed)


@lru_cache(maxsize=512)
def published_identity(root: Path, row: Row, dataset: str, protocol: str = "clearclip") -> dict[str, Any]:
    """What a run of a row by a protocol is known by; see :func:`~clearclip.evaluation.config.run_identity`."""
    cfg = _published_config(root, dataset, protocol)
    return {
        **run_identity(cfg, row_settings(row, dataset, cfg)),
        "checkpoint": published_checkpoint(row.clip_type, row.vit),
    }


@lru_cache(maxsize=32)
def _published_config(root: Path, dataset: str, protocol: str) -> Config:
    return load_config(config_path(root, dataset), protocol_overrides(protocol, dataset, root))


def same_run(settings: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Whether a run with these recorded settings is the one that ``identity`` describes."""
    # "pretrained" may be a path; which weights it holds is what "checkpoint" says. The loaded precision is recorded.
    names = [name for name in identity if name not in ("pretrained", "precision")]
    wanted = identity["precision"]
    return all(settings.get(name) == identity[name] for name in names) and (
        settings.get("precision") in (PRECISIONS if wanted == "auto" else (wanted,))
    )


def protocol_of(run: Mapping[str, Any], root: Path) -> str:
    """ "published" for a run by ClearCLIP's protocol, whatever its method; the name of another protocol of
    :data:`PROTOCOLS`; "other" for any other run; and whether images were skipped.
    """
    settings, found = run["settings"], "other"
    protocols = {"miniature": PROTOCOLS[:1], **dict.fromkeys(BENCHMARKS, PROTOCOLS)}.get(run["dataset"], ())
    if protocols and settings["model_name"] is None:
        row = Row("", "", settings["clip_type"], settings["vit_type"], build_method(settings["method"]))
        for protocol in protocols:
            if same_run(settings, published_identity(root, row, run["dataset"], protocol)):
                found = "published" if protocol == "clearclip" else protocol
    return found + (", images skipped" if run["skipped"] else "")


def measured_value(
    runs: Iterable[dict[str, Any]], row: Row, dataset: str, root: Path, protocol: str = "clearclip"
) -> float | None:
    """The mIoU of the latest run of a row on a dataset by a protocol, in percent; None without one.

    Runs with other weights, windows, words or thresholds, on a part of the images, or with skipped images do not
    count: they are in the list of runs only.
    """
    found = None
    for run in runs:
        if run["dataset"] == dataset and not run.get("skipped"):
            identity = published_identity(root, row, dataset, protocol)
            if same_run(run["settings"], identity):
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


def fill_row(
    table: str,
    row: Row,
    datasets: tuple[str, ...],
    runs: list[dict[str, Any]],
    root: Path,
    protocol: str = "clearclip",
) -> list[Cell]:
    """The cells of a row by a protocol, and behind them their average (measured only where the row is complete)."""
    cells = [
        Cell(measured_value(runs, row, name, root, protocol), published_value(table, row, name, protocol))
        for name in datasets
    ]
    if len(columns(table, datasets)) == len(datasets):
        return cells
    measured = [cell.measured for cell in cells]
    average = None if None in measured else fmean(measured)
    return [*cells, Cell(average, published_value(table, row, "average"))]


def columns(table: str, datasets: tuple[str, ...]) -> list[str]:
    """The headings that belong to :func:`fill_row`."""
    averaged = len(datasets) > 1 and table not in ("benchmarks", "family")
    return [*datasets, "average"] if averaged else [*datasets]


def to_markdown(
    table: str,
    rows: list[Row],
    datasets: tuple[str, ...],
    runs: list[dict[str, Any]],
    root: Path,
    protocol: str = "clearclip",
) -> str:
    """A table for a README: measured, and the published figure in brackets."""
    headings = columns(table, datasets)
    lines = [f"| ViT | system | ClearCLIP | {' | '.join(headings)} |", "|---|---|---|" + "---:|" * len(headings)]
    for row in rows:
        cells = [format_cell(cell) for cell in fill_row(table, row, datasets, runs, root, protocol)]
        lines.append(f"| {row.vit} | {row.name} | {row.clearclip} | {' | '.join(cells)} |")
    return "\n".join(lines)


def format_cell(cell: Cell) -> str:
    """``80.9 (80.9)``: measured (published)."""
    measured = "–" if cell.measured is None else f"{cell.measured:.1f}"
    return measured if cell.published is None else f"{measured} ({cell.published:.1f})"

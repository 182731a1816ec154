"""A whole table: its runs one after the other, each in a process of its own, none of them twice."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.config import Config

from clearclip.errors import UserError
from clearclip.evaluation.configs import load_config, requested_settings
from clearclip.reports.results import read_rows
from clearclip.reports.tables import Row, row_options, table_datasets, table_rows


@dataclass
class Run:
    """One cell of a table: a row on a dataset.

    Attributes:
        row: the row.
        config: the config file.
        options: what of the config's ``model`` is overridden.
        settings: what the result will be filed under, see :func:`requested_settings`.
        images: how many.
    """

    row: Row
    dataset: str
    config: Path
    options: dict[str, Any]
    settings: dict[str, Any]
    images: int

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.row.label} on {self.dataset}"

    def is_in(self, rows: Sequence[dict[str, Any]]) -> bool:
        """Whether a result of the same settings is among these."""
        return any(all(row["settings"].get(name) == value for name, value in self.settings.items()) for row in rows)


def select_rows(table: str, miniature: bool, names: Sequence[str] | None, vit: Sequence[str] | None) -> list[Row]:
    """The rows of a table, narrowed.

    Args:
        table: see :func:`clearclip.reports.tables.table_rows`.
        miniature: with the bundled model.
        names: systems ("MaskCLIP"), with or without " + ClearCLIP"; None takes all.
        vit: sizes; None takes all, but ViT-B/16 only for "benchmarks" and "ablation".

    Raises:
        UserError: an unknown name; lists the valid ones.
    """
    rows = table_rows(table, miniature)
    if vit is None and table in ("benchmarks", "ablation"):
        vit = [rows[0].vit]
    if vit is not None:
        _check_known("vit", vit, {row.vit for row in rows})
        rows = [row for row in rows if row.vit in vit]
    if names is not None:
        full = {row: f"{row.name} + ClearCLIP" if row.clearclip == "yes" else row.name for row in rows}
        _check_known("row", names, {*full.values(), *(row.name for row in rows)})
        # "CLIP" is both CLIP and CLIP + ClearCLIP; "CLIP + ClearCLIP" is only the latter.
        rows = [row for row in rows if row.name in names or full[row] in names]
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


def plan(
    rows: Sequence[Row], datasets: Sequence[str], root: Path, overrides: dict[str, Any], limit: int | None = None
) -> list[Run]:
    """The runs of these rows and datasets, in the order of the rows.

    Args:
        root: the folder that has ``config/``.
        overrides: dotted names to values, for every run.
        limit: images per run, None for all.
    """
    runs = []
    for row in rows:
        for dataset in datasets:
            config = root / "config" / f"cfg_{dataset}.py"
            options = {f"model.{name}": value for name, value in row_options(row, dataset).items()}
            cfg: Config = load_config(config, {**options, **overrides})
            images = min(cfg.get("expected_images", 1), limit or sys.maxsize)
            settings = requested_settings(cfg, limit)
            runs.append(Run(row, dataset, config, {**options, **overrides}, settings, images))
    return runs


def run_all(
    runs: Sequence[Run],
    root: Path,
    results: Path,
    *,
    gpus: int | None = None,
    force: bool = False,
    arguments: Sequence[str] = (),
) -> dict[str, list[tuple[Run, str]]]:
    """Run what has no result yet; one that fails does not stop the others.

    Args:
        runs: of :func:`plan`.
        root: the folder that has ``eval.py`` and ``dist_test.sh``.
        results: the workbook.
        gpus: go through ``dist_test.sh`` with so many processes.
        force: repeat what has a result.
        arguments: further arguments of ``eval.py``.

    Returns:
        "done", "skipped" and "failed": the runs with a remark each.
    """
    outcome: dict[str, list[tuple[Run, str]]] = {"done": [], "skipped": [], "failed": []}
    known = read_rows(results)
    todo = []
    for run in runs:
        if not force and run.is_in(known):
            outcome["skipped"].append((run, "has a result"))
        else:
            todo.append(run)
    started = time.monotonic()
    finished_images = 0
    for number, run in enumerate(todo, start=1):
        elapsed = time.monotonic() - started
        left = sum(other.images for other in todo[number - 1 :])
        estimate = f", about {_clock(elapsed / finished_images * left)} left" if finished_images else ""
        print(f"[{number}/{len(todo)}] {run.label} (elapsed {_clock(elapsed)}{estimate})", flush=True)
        code, words = _start(_command(run, root, results, gpus, arguments), gpus)
        finished_images += run.images
        if code == 0:
            score = read_rows(results)[-1]["mIoU"]
            outcome["done"].append((run, f"mIoU {score:.2f}"))
            print(f"    mIoU {score:.2f}", flush=True)
        else:
            outcome["failed"].append((run, words))
            print(f"    failed: {words}", flush=True)
    return outcome


def _command(run: Run, root: Path, results: Path, gpus: int | None, arguments: Sequence[str]) -> list[str]:
    start = ["bash", str(root / "dist_test.sh")] if gpus else [sys.executable, str(root / "eval.py"), "--config"]
    options = [f"{name}={value}" for name, value in run.options.items()]
    folder = f"{run.row.label} {run.dataset}".replace("/", "-").replace(" ", "_").replace(",", "")
    return [
        *(*start, str(run.config), "--results", str(results), "--resume", "auto"),
        *("--work-dir", str(Path("work_dirs") / "tables" / folder), *arguments, "--cfg-options", *options),
    ]


def _start(command: list[str], gpus: int | None) -> tuple[int, str]:
    """Run a command; its progress goes to the terminal.

    Returns:
        Its exit code, and its last words where it failed.
    """
    environment = {**os.environ, "PYTHON": sys.executable}
    if gpus:
        environment["GPUS"] = str(gpus)
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, preexec_fn=_end_with_parent
    )
    tail = bytearray()

    def pass_on() -> None:
        while chunk := process.stderr.read1(4096):
            sys.stderr.buffer.write(chunk)
            sys.stderr.flush()
            tail.extend(chunk)
            del tail[:-4096]

    reader = threading.Thread(target=pass_on)
    reader.start()
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        raise
    finally:
        reader.join()
    if code in (-9, 137):
        return code, "it was killed, perhaps for want of memory"
    lines = [line for line in tail.decode(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error")]
    return code, (errors or lines or [f"exit code {code}"])[-1].removeprefix("error: ")


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent is killed: a table that is started again repeats no run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

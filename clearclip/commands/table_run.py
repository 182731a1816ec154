"""A whole table: rows with the same weights, dataset and windows in one pass, and none of them twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.config import Config

from clearclip.evaluation.config import load_config, run_identity
from clearclip.evaluation.evaluate import evaluate
from clearclip.model import ClearCLIP
from clearclip.results.cells import config_path, row_settings, same_run
from clearclip.results.protocols import protocol_overrides
from clearclip.results.records import read_rows, record
from clearclip.results.rows import Row
from clearclip.settings import ModelSettings
from clearclip.utils.errors import UserError


@dataclass
class Group:
    """Cells of a table that one pass over a dataset computes.

    Attributes:
        dataset: its name.
        settings: of the model; the rows' methods take the place of its own.
        rows: the rows, each with another method.
        cfg: the config.
        overrides: what of the config is overridden.
        limit: images, None for all.
        protocol: by whose protocol.
    """

    dataset: str
    settings: ModelSettings
    rows: list[Row]
    cfg: Config
    overrides: dict[str, Any]
    limit: int | None
    protocol: str = "clearclip"

    @property
    def label(self) -> str:
        """The group in a line of text."""
        names = ", ".join(row.system for row in self.rows[:3]) + (", …" if len(self.rows) > 3 else "")
        return f"{self.dataset}, {self.rows[0].vit}: {names}"

    @property
    def images(self) -> int:
        """How many images, as far as is known."""
        return min(self.cfg.get("expected_images", 1), self.limit or sys.maxsize)

    @property
    def options(self) -> dict[str, Any]:
        """What of the config this group overrides."""
        settings = self.settings
        own = {name: getattr(settings, name) for name in ("clip_type", "vit_type", "prob_thd")}
        return {**{f"model.{name}": value for name, value in own.items()}, **self.overrides}

    def has_result(self, row: Row, runs: Sequence[dict[str, Any]]) -> bool:
        """Whether a run of a row with the same settings is among these."""
        identity = run_identity(self.cfg, replace(self.settings, method=row.method), self.limit)
        return any(same_run(run["settings"], identity) for run in runs)


def plan(
    rows: Sequence[Row],
    datasets: Sequence[str],
    root: Path,
    overrides: dict[str, Any],
    limit: int | None = None,
    protocol: str = "clearclip",
) -> list[Group]:
    """The groups of these rows and datasets. Groups with the same weights follow each other.

    Args:
        root: the folder that has ``config/``.
        overrides: dotted names to values, for every run.
        limit: images per run, None for all.
        protocol: by whose protocol; ``overrides`` go beyond it.
    """
    groups: dict[tuple, Group] = {}
    for row in rows:
        for dataset in datasets:
            thd = row.prob_thd(dataset)
            key = (row.clip_type, row.vit, dataset, thd)
            if key not in groups:
                changed = {**protocol_overrides(protocol, dataset, root), **overrides}
                cfg = load_config(config_path(root, dataset), changed)
                groups[key] = Group(dataset, row_settings(row, dataset, cfg), [], cfg, changed, limit, protocol)
            groups[key].rows.append(row)
    return sorted(groups.values(), key=lambda group: [row.clip_type + row.vit for row in rows].index(
        group.rows[0].clip_type + group.rows[0].vit
    ))  # fmt: skip


class Models:
    """Keeps the last model that was loaded, for groups that share its weights."""

    def __init__(self, device: str | None):
        self.device = device
        self.key: dict[str, Any] | None = None
        self.model: ClearCLIP | None = None

    def get(self, settings: ModelSettings) -> ClearCLIP:
        """The model with the weights of these settings."""
        names = ["clip_type", "vit_type", "model_name", "pretrained", "quick_gelu", "normalization", "precision"]
        if settings.clip_type == "BLIP":  # whose positional embeddings are resized for one window
            names.append("slide_crop")
        key = {name: getattr(settings, name) for name in names}
        if self.model is None or key != self.key:
            self.model = None  # frees its memory before the next one is loaded
            self.model = ClearCLIP.from_settings(replace(settings, device=self.device or settings.device))
            self.key = key
        return self.model


def run_all(
    groups: Sequence[Group],
    root: Path,
    results: Path,
    *,
    gpus: int | None = None,
    force: bool = False,
    device: str | None = None,
    batch_size: int | None = None,
    on_error: str = "stop",
) -> dict[str, list[tuple[str, str]]]:
    """Compute the cells that have no result yet; a group that fails does not stop the others.

    Args:
        groups: of :func:`plan`.
        root: the folder that has ``eval.py`` and ``dist_test.sh``.
        results: the workbook.
        gpus: go through ``dist_test.sh`` with so many processes; None computes in this process.
        force: repeat what has a result.
        device, batch_size, on_error: see :func:`clearclip.evaluation.evaluate.evaluate`.

    Returns:
        "done", "skipped" and "failed": labels with a remark each.
    """
    outcome: dict[str, list[tuple[str, str]]] = {"done": [], "skipped": [], "failed": []}
    known = [] if force else read_rows(results)
    todo = []
    for group in groups:
        left = [row for row in group.rows if not group.has_result(row, known)]
        outcome["skipped"] += [
            (f"{row.label} on {group.dataset}", "has a result") for row in group.rows if row not in left
        ]
        if left:
            todo.append(replace(group, rows=left))
    resume = "no" if force else "auto"
    options = {"device": device, "batch_size": batch_size, "on_error": on_error, "resume": resume}
    models = Models(device)
    started, finished_images = time.monotonic(), 0
    for number, group in enumerate(todo, start=1):
        elapsed = time.monotonic() - started
        left = sum(other.images for other in todo[number - 1 :])
        estimate = f", about {_clock(elapsed / finished_images * left)} left" if finished_images else ""
        print(f"[{number}/{len(todo)}] {group.label} (elapsed {_clock(elapsed)}{estimate})", flush=True)
        try:
            if gpus:
                _run_processes(group, root, results, gpus, options)
            else:
                _run_here(group, root, results, models, options)
        except Exception as error:  # whatever stops one group, the others go on
            words = " ".join(str(error).split()) or type(error).__name__
            outcome["failed"].append((group.label, words))
            print(f"    failed: {words}", flush=True)
        else:
            for row, score in _scores(group, results):
                outcome["done"].append((f"{row.label} on {group.dataset}", f"mIoU {score:.2f}"))
                print(f"    {row.system}: mIoU {score:.2f}", flush=True)
        finished_images += group.images
    return outcome


def _run_here(group: Group, root: Path, results: Path, models: Models, options: dict[str, Any]) -> None:
    found = evaluate(
        load_config(group.cfg.filename, group.options),
        work_dir(group),
        methods=[row.method for row in group.rows],
        model=models.get(group.settings),
        overrides=group.options,
        limit=group.limit,
        **options,
    )
    record(found, results, root)


def _run_processes(group: Group, root: Path, results: Path, gpus: int, options: dict[str, Any]) -> None:
    if not (root / "dist_test.sh").is_file():
        raise UserError("--gpus needs dist_test.sh, which a clone of the repository has, not an installed package")
    given = {"results": results, "work_dir": work_dir(group), "limit": group.limit, **options}
    command = [
        *("bash", str(root / "dist_test.sh"), str(group.cfg.filename)),
        *(
            word
            for name, value in given.items()
            if value is not None
            for word in (f"--{name.replace('_', '-')}", str(value))
        ),
        *("--methods", *(json.dumps(row.method.settings) for row in group.rows)),
        *("--cfg-options", *(f"{name}={value}" for name, value in group.options.items())),
    ]
    environment = {**os.environ, "PYTHON": sys.executable, "GPUS": str(gpus)}
    # Its progress and its errors go to the terminal.
    code = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment).returncode
    if code:
        killed = code in (-9, 137)
        raise UserError("it was killed, perhaps because memory ran out" if killed else f"exit code {code}, see above")


def work_dir(group: Group) -> Path:
    """Where the journal of a group is kept."""
    row = group.rows[0]
    name = f"{row.clip_type} {row.vit} {group.dataset} {group.settings.prob_thd:g} {group.protocol}"
    return Path("work_dirs") / "tables" / name.replace("/", "-").replace(" ", "_")


def _scores(group: Group, results: Path) -> list[tuple[Row, float]]:
    """The mIoU of each row, of its latest run with these settings, whoever else writes to the workbook."""
    runs = read_rows(results)
    return [
        (row, [run["mIoU"] for run in runs if group.has_result(row, [run])][-1])
        for row in group.rows
    ]  # fmt: skip


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

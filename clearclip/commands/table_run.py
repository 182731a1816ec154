"""A whole table, computed group by group: one that fails does not stop the others, and nothing is computed twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from clearclip.commands.eval import no_cell_text
from clearclip.commands.table_check import START_SCRIPT, TableCheck
from clearclip.commands.table_plan import OWN_RESULT, Group, has_result, work_dir
from clearclip.commands.table_repetition import NO_REPETITION, Repetition
from clearclip.evaluation.loaded_model import LoadedModel
from clearclip.evaluation.run import evaluate
from clearclip.model_settings import WEIGHT_OPTIONS, ModelSettings
from clearclip.results.record import Record
from clearclip.results.records import append, command_id, read_records
from clearclip.utils.errors import UserError
from clearclip.utils.printable import printable


@dataclass
class Outcome:
    """What became of the rows of a table.

    Attributes:
        computed: how many were computed.
        skipped: how many had a result.
        failed: why groups failed → their labels.
    """

    computed: int = 0
    skipped: int = 0
    failed: dict[str, list[str]] = field(default_factory=dict)

    def fail(self, group: Group, reason: str) -> None:
        """Note that a group failed, and print why, each reason once."""
        print("    failed" if reason in self.failed else f"    failed: {printable(reason)}", flush=True)
        self.failed.setdefault(reason, []).append(group.label)


def run_all(
    groups: Sequence[Group],
    results: Path,
    check: TableCheck,
    *,
    gpus: int | None = None,
    repetition: Repetition = NO_REPETITION,
    device: str | None = None,
    **options: Any,
) -> Outcome:
    """Compute the cells that have no result yet; a group that fails does not stop the others.

    Args:
        groups: of :func:`plan`.
        results: the workbook.
        check: looks at data and weights before a group is started.
        gpus: go through ``dist_test.sh`` with so many processes; None computes in this process.
        repetition: which results are computed again.
        device: see :func:`clearclip.evaluation.run.evaluate`.
        **options: see :func:`clearclip.evaluation.run.evaluate`: ``batch_size``, ``on_error``.
    """
    outcome = Outcome()
    remaining = _without_result(groups, repetition.records_that_count(results), device, outcome)
    if remaining:
        check.check_start()
    models = LatestModel(device)
    progress = Progress(remaining)
    for group in remaining:
        print(progress.line(group), flush=True)
        options_of_run = {**options, "device": device, "resume": repetition.resume_option(work_dir(group))}
        reason = check.missing(group.cfg)
        try:
            if reason:
                outcome.fail(group, reason)
            elif gpus:
                _print_scores(group, _run_processes(group, results, gpus, options_of_run), outcome)
            else:
                _print_scores(group, _run_here(group, results, models, options_of_run), outcome)
        except Exception as error:  # whatever stops one group, the others go on
            outcome.fail(group, " ".join(str(error).split()) or type(error).__name__)
        progress.finish(group)
    return outcome


def _without_result(
    groups: Sequence[Group], records: Sequence[Record], device: str | None, outcome: Outcome
) -> list[Group]:
    """The groups with the rows that have no result; the others are counted as skipped."""
    remaining = []
    for group in groups:
        rows = []
        for row in group.rows:
            if not has_result(group, row, records, device):
                rows.append(row)
            elif row.is_own:
                print(f"{printable(row.system)}, {group.dataset}: {OWN_RESULT}", flush=True)
        outcome.skipped += len(group.rows) - len(rows)
        if rows:
            remaining.append(replace(group, rows=rows))
    return remaining


def _print_scores(group: Group, records: Sequence[Record], outcome: Outcome) -> None:
    """Print and count the rows that were computed."""
    row_by_label = {group.method(row).label: row for row in group.rows}
    remarks: set[str] = set()
    for record in records:
        outcome.computed += 1
        miou = "n/a (no pixel counted)" if record.mIoU is None else f"{record.mIoU:.2f}"
        row = row_by_label[record.method]
        print(f"    {printable(row.system)}: mIoU {miou}", flush=True)
        # Rows of the user's own are in the table with a mark.
        if not row.is_own:
            remarks.add(no_cell_text(record.not_published_because or []))
    # Rows of a group mostly have the same reason.
    for remark in sorted(filter(None, remarks)):
        print(f"    {remark}", flush=True)


class Progress:
    """How far a table is, by the images of its groups."""

    def __init__(self, groups: Sequence[Group]):
        self._groups = list(groups)
        self._started = time.monotonic()
        self._images_done = 0
        self._number = 0

    def line(self, group: Group) -> str:
        """What is printed before a group is computed."""
        self._number += 1
        elapsed = time.monotonic() - self._started
        images_ahead = sum(remaining.images for remaining in self._groups[self._number - 1 :])
        text = f"elapsed {_clock(elapsed)}"
        if self._images_done:
            text += f", about {_clock(elapsed / self._images_done * images_ahead)} left"
        return f"[{self._number}/{len(self._groups)}] {printable(group.label)} ({text})"

    def finish(self, group: Group) -> None:
        """Count the images of a group."""
        self._images_done += group.images


class LatestModel:
    """The model of the group before, which the next group may share: loading one takes seconds.

    Args:
        device: where models go; None: where the config says.
    """

    def __init__(self, device: str | None):
        self._device = device
        self._model: LoadedModel | None = None
        self._model_key: tuple | None = None

    def model_for(self, group: Group) -> LoadedModel:
        """The model with a group's weights."""
        settings = group.settings
        key = _model_key(settings)
        if self._model is None or self._model_key != key:
            # Its memory is freed before the next one is loaded: a GPU may not hold both.
            self._model = None
            self._model = LoadedModel.load(replace(settings, device=self._device or settings.device))
            self._model_key = key
        return self._model


def _run_here(group: Group, results: Path, models: LatestModel, options: Mapping[str, Any]) -> list[Record]:
    """Evaluate a group in this process, and record it."""
    evaluations = evaluate(
        group.cfg,
        work_dir(group),
        methods=[group.method(row) for row in group.rows],
        model=models.model_for(group),
        overrides=group.overrides,
        limit=group.limit,
        imports=group.imports,
        **options,
    )
    return append([evaluation.record for evaluation in evaluations], results)


def _model_key(settings: ModelSettings) -> tuple:
    """What groups have in common that share a model."""
    # BLIP's positional embeddings are resized for one window.
    crop = settings.slide_crop if settings.clip_type == "BLIP" else None
    return (crop, *(getattr(settings, name) for name in (*WEIGHT_OPTIONS, "normalization", "precision")))


def _run_processes(group: Group, results: Path, gpus: int, options: Mapping[str, Any]) -> list[Record]:
    """Evaluate a group in several processes, which record it themselves.

    Returns:
        Their records: other commands may have added records to the same file in the meantime.
    """
    ids_before = {record.id for record in read_records(results)[0]}
    arguments = {"results": results, "work_dir": work_dir(group), "limit": group.limit, **options}
    command = ["bash", str(START_SCRIPT), str(group.cfg.filename)]
    for name, value in arguments.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    for file in group.imports:
        command += ["--import", str(file)]
    command += ["--methods", *(json.dumps(group.method(row).settings) for row in group.rows)]
    command += ["--cfg-options", *(f"{name}={value}" for name, value in group.overrides.items())]
    # The id of this command goes to the processes with the environment.
    command_prefix = command_id()
    environment = {**os.environ, "PYTHON": sys.executable, "GPUS": str(gpus)}
    # Their progress and their errors go to the terminal.
    code = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment).returncode
    if code:
        is_killed = code in (-9, 137)
        raise UserError(
            "it was killed, perhaps because memory ran out" if is_killed else f"exit code {code}, see above"
        )
    records = read_records(results)[0]
    return [record for record in records if record.id.startswith(command_prefix) and record.id not in ids_before]


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

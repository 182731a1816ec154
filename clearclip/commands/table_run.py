"""A whole table: rows with the same weights, dataset and windows in one pass, and none of them twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

from mmengine.config import Config

from clearclip.commands.table_check import START_SCRIPT, TableCheck
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import CONFIGS, load_config, model_settings
from clearclip.evaluation.own_code import own_classes, own_code_facts
from clearclip.evaluation.run import evaluate
from clearclip.evaluation.run_facts import method_facts, run_facts
from clearclip.evaluation.weight_facts import LoadedModel, weights_facts
from clearclip.methods import Method, build_method
from clearclip.model_settings import NAMING, ModelSettings
from clearclip.results.protocols import find_protocol, protocol_names
from clearclip.results.record import Record
from clearclip.results.records import append, command_id, read_records
from clearclip.results.table_definitions import Row
from clearclip.utils.devices import choose_device, choose_precision
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest
from clearclip.utils.printable import printable

#: Options of a config that the rows of a table set.
OF_ROWS = ("clip_type", "vit_type", "model_name", "methods", "method", "model_type", "ignore_residual", "attention",
           "residual", "ffn", "alpha")  # fmt: skip


#: What is said of a method of the user's own that is not computed again.
OWN_RESULT = "has a result of the same files; what else it reads is not compared (--force repeats it)"


@dataclass
class Group:
    """Cells of a table that one pass over a dataset computes.

    Attributes:
        dataset: its name.
        rows: the rows, each with another method.
        cfg: the config, with the rows' weights.
        overrides: what of the config is overridden.
        limit: images, None for all.
        protocol: by whose protocol.
        imports: files with methods of the user's own.
    """

    dataset: str
    rows: list[Row]
    cfg: Config
    overrides: dict[str, Any]
    limit: int | None
    protocol: str
    imports: Sequence[str] = ()
    _common: dict[str, Any] | None = field(default=None, repr=False)

    def method(self, row: Row) -> Method:
        """How a row's last blocks are computed, with the protocol's options."""
        return build_method(row.method).with_options(find_protocol(self.protocol, self.dataset).method_options)

    @property
    def settings(self) -> ModelSettings:
        """Of the model; the rows' methods take the place of its own."""
        return model_settings(self.cfg)

    @property
    def label(self) -> str:
        """The group in a line of text."""
        names = ", ".join(row.system for row in self.rows[:3]) + (", …" if len(self.rows) > 3 else "")
        return f"{self.dataset}, {self.rows[0].vit}: {names}"

    @property
    def images(self) -> int:
        """How many images, as far as is known."""
        return min(self.cfg.get("expected_images", 1), self.limit or sys.maxsize)

    def fingerprints(self, row: Row, device: str | None) -> list[str]:
        """What a row's run would be known by, without and with the user's own code beside it; empty where weights or
        data are not on this machine yet.
        """
        if self._common is None:
            try:
                dataset = CheckedDataset(self.cfg.test_dataloader.dataset, self.limit)
                chosen = choose_device(device or self.settings.device)
                precision = choose_precision(self.settings.precision, chosen)
                self._common = run_facts(self.cfg, dataset, self.settings, chosen, precision)
                self._common["weights"] = weights_facts(self.settings)
                self._common["own code"] = own_code_facts(own_classes(self.cfg, dataset), self.imports)
            except Exception:  # of whatever is missing, the evaluation says what it is
                self._common = {}
        if not self._common.get("weights"):
            return []
        facts = {**self._common, "method": method_facts(self.method(row))}
        own_code = facts.pop("own code")
        return [digest(facts), digest({**facts, "own code": own_code})]


def plan(
    rows: Sequence[Row],
    datasets: Sequence[str],
    overrides: Mapping[str, Any],
    limit: int | None = None,
    protocol: str = "clearclip",
    imports: Sequence[str] = (),
) -> list[Group]:
    """The groups of these rows and datasets. Groups with the same weights follow each other.

    Args:
        overrides: dotted names to values, for every run.
        limit: images per run, None for all.
        protocol: by whose protocol; ``overrides`` go beyond it.
        imports: files with methods of the user's own.

    Raises:
        UserError: an override of what the rows set, or a dataset that the protocol says nothing about.
    """
    for name in overrides:
        if name.removeprefix("model.") in OF_ROWS:
            raise UserError(f"{name} is what the rows of a table set; choose rows (--rows, --vit), or use eval.py")
    groups: dict[tuple, Group] = {}
    for row, dataset in product(rows, datasets):
        row_overrides = {**_row_overrides(row, dataset, protocol), **overrides}
        key = (dataset, *row.weights.values(), *row.settings_for(dataset).items())
        if key not in groups:
            cfg = load_config(CONFIGS / f"cfg_{dataset}.py", row_overrides)
            groups[key] = Group(dataset, [], cfg, row_overrides, limit, protocol, imports)
        groups[key].rows.append(row)
    weights_in_order = [row.weights for row in rows]
    return sorted(groups.values(), key=lambda group: weights_in_order.index(group.rows[0].weights))


def _row_overrides(row: Row, dataset: str, protocol: str) -> dict[str, Any]:
    """What a row and a protocol change in the config of a dataset, as dotted names to values."""
    overrides: dict[str, Any] = {f"model.{name}": value for name, value in row.weights.items()}
    how = find_protocol(protocol, dataset)
    # The first protocol is that of the configs themselves.
    if protocol != protocol_names()[0]:
        overrides |= {f"model.{name}": value for name, value in how.model.items()}
        overrides["model.name_path"] = str(CONFIGS / how.names_file)
        overrides["test_dataloader.dataset.pipeline.1.scale"] = tuple(how.scale)
    return overrides | {f"model.{name}": value for name, value in row.settings_for(dataset).items()}


def has_result(group: Group, row: Row, records: Sequence[Record], device: str | None) -> bool:
    """Whether a record has the fingerprint that the row's run would have."""
    fingerprints = {record.fingerprint for record in records if not record.remark and not record.skipped}
    return not fingerprints.isdisjoint(group.fingerprints(row, device))


@dataclass
class Outcome:
    """What became of the rows of a table.

    Attributes:
        done: how many were computed.
        skipped: how many had a result.
        failed: why groups failed → their labels.
    """

    done: int = 0
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
    force: bool = False,
    device: str | None = None,
    **options: Any,
) -> Outcome:
    """Compute the cells that have no result yet; a group that fails does not stop the others.

    Args:
        groups: of :func:`plan`.
        results: the workbook.
        check: looks at data and weights before a group is started.
        gpus: go through ``dist_test.sh`` with so many processes; None computes in this process.
        force: repeat what has a result.
        device: see :func:`clearclip.evaluation.run.evaluate`.
        **options: see :func:`clearclip.evaluation.run.evaluate`: ``batch_size``, ``on_error``.
    """
    outcome = Outcome()
    records = [] if force else read_records(results)[0]
    remaining = _without_result(groups, records, device, outcome)
    if remaining:
        check.check_start()
    options |= {"device": device, "resume": "no" if force else "auto"}
    in_process = InProcess(options)
    progress = Progress(remaining)
    for group in remaining:
        print(progress.line(group), flush=True)
        reason = check.missing(group.cfg)
        try:
            if reason:
                outcome.fail(group, reason)
            elif gpus:
                _report(group, _run_processes(group, results, gpus, options), outcome)
            else:
                _report(group, append(in_process.evaluate(group), results), outcome)
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


def _report(group: Group, records: Sequence[Record], outcome: Outcome) -> None:
    """Print and count the rows that were computed."""
    row_by_label = {group.method(row).label: row for row in group.rows}
    for record in records:
        outcome.done += 1
        miou = "n/a (no pixel counted)" if record.mIoU is None else f"{record.mIoU:.2f}"
        print(f"    {printable(row_by_label[record.method].system)}: mIoU {miou}", flush=True)


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
        images_ahead = sum(other.images for other in self._groups[self._number - 1 :])
        text = f"elapsed {_clock(elapsed)}"
        if self._images_done:
            text += f", about {_clock(elapsed / self._images_done * images_ahead)} left"
        return f"[{self._number}/{len(self._groups)}] {printable(group.label)} ({text})"

    def finish(self, group: Group) -> None:
        """Count the images of a group."""
        self._images_done += group.images


class InProcess:
    """Evaluates groups in this process, one model after the other.

    Args:
        options: see :func:`clearclip.evaluation.run.evaluate`.
    """

    def __init__(self, options: Mapping[str, Any]):
        self._options = options
        self._model: LoadedModel | None = None
        self._model_key: tuple | None = None

    def evaluate(self, group: Group) -> list[dict[str, Any]]:
        """Evaluate the rows of a group: what is to be recorded of each."""
        settings = group.settings
        key = _model_key(settings)
        if self._model_key != key:
            self._model = self._model_key = None  # frees its memory before the next one is loaded
            device = self._options["device"] or settings.device
            self._model, self._model_key = LoadedModel.load(replace(settings, device=device)), key
        evaluations = evaluate(
            group.cfg,
            work_dir(group),
            methods=[group.method(row) for row in group.rows],
            model=self._model,
            overrides=group.overrides,
            limit=group.limit,
            imports=group.imports,
            **self._options,
        )
        return [evaluation.record for evaluation in evaluations]


def _model_key(settings: ModelSettings) -> tuple:
    """What groups have in common that share a model."""
    # BLIP's positional embeddings are resized for one window.
    crop = settings.slide_crop if settings.clip_type == "BLIP" else None
    return (crop, *(getattr(settings, name) for name in (*NAMING, "normalization", "precision")))


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


def work_dir(group: Group) -> Path:
    """Where the journals of a group are kept."""
    row = group.rows[0]
    name = f"{' '.join(row.weights.values())} {group.dataset} {group.protocol}"
    return Path("work_dirs") / "tables" / name.replace("/", "-").replace(" ", "_")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

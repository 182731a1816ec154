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

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import CONFIGS, load_config, model_settings
from clearclip.evaluation.facts import method_facts, run_facts
from clearclip.evaluation.run import evaluate
from clearclip.methods import Method, build_method
from clearclip.model import ClearCLIP
from clearclip.model_settings import NAMING, ModelSettings
from clearclip.results.published import Row, find_protocol
from clearclip.results.records import append, read_records
from clearclip.utils.devices import choose_device, choose_precision
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest

#: Options of a config that the rows of a table set.
OF_ROWS = ("clip_type", "vit_type", "model_name", "methods", "method", "model_type", "ignore_residual", "attention",
           "residual", "ffn", "alpha")  # fmt: skip


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
    """

    dataset: str
    rows: list[Row]
    cfg: Config
    overrides: dict[str, Any]
    limit: int | None
    protocol: str
    _common: dict[str, Any] | None = field(default=None, repr=False)

    def method(self, row: Row) -> Method:
        """How a row's last blocks are computed, with the protocol's options."""
        return build_method(row.method).with_options(find_protocol(self.protocol, self.dataset).options)

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

    def fingerprint(self, row: Row, device: str | None) -> str | None:
        """What a row's run would be known by; None where weights or data are not on this machine yet."""
        if self._common is None:
            try:
                dataset = CheckedDataset(self.cfg.test_dataloader.dataset, self.limit)
                chosen = choose_device(device or self.settings.device)
                precision = choose_precision(self.settings.precision, chosen)
                self._common = run_facts(self.cfg, dataset, self.settings, chosen, precision)
            except Exception:  # of whatever is missing, the evaluation says what it is
                self._common = {}
        known = self._common.get("weights")
        return digest({**self._common, "method": method_facts(self.method(row))}) if known else None


def plan(
    rows: Sequence[Row],
    datasets: Sequence[str],
    overrides: Mapping[str, Any],
    limit: int | None = None,
    protocol: str = "clearclip",
) -> list[Group]:
    """The groups of these rows and datasets. Groups with the same weights follow each other.

    Args:
        overrides: dotted names to values, for every run.
        limit: images per run, None for all.
        protocol: by whose protocol; ``overrides`` go beyond it.

    Raises:
        UserError: an override of what the rows set, or a dataset that the protocol says nothing about.
    """
    for name in overrides:
        if name.removeprefix("model.") in OF_ROWS:
            raise UserError(f"{name} is what the rows of a table set; choose rows (--rows, --vit), or use eval.py")
    groups: dict[tuple, Group] = {}
    for row, dataset in product(rows, datasets):
        thd = row.prob_thd(dataset)
        key = (*row.naming.values(), dataset, thd)
        if key not in groups:
            changed: dict[str, Any] = {f"model.{name}": value for name, value in row.naming.items()}
            how = find_protocol(protocol, dataset)
            if protocol != "clearclip":  # which is the configs' own
                changed |= {f"model.{name}": value for name, value in how.model.items()}
                changed["model.name_path"] = str(CONFIGS / how.names_file)
                changed["test_dataloader.dataset.pipeline.1.scale"] = tuple(how.scale)
            changed |= {} if thd is None else {"model.prob_thd": thd}
            changed |= overrides
            cfg = load_config(CONFIGS / f"cfg_{dataset}.py", changed)
            groups[key] = Group(dataset, [], cfg, changed, limit, protocol)
        groups[key].rows.append(row)
    order = [row.naming for row in rows]
    return sorted(groups.values(), key=lambda one: order.index(one.rows[0].naming))


def has_result(group: Group, row: Row, records: Sequence[Mapping[str, Any]], device: str | None) -> bool:
    """Whether a record has the fingerprint that the row's run would have."""
    known = {record["fingerprint"] for record in records if not record.get("remark") and not record.get("skipped")}
    return group.fingerprint(row, device) in known


def run_all(
    groups: Sequence[Group],
    results: Path,
    *,
    gpus: int | None = None,
    force: bool = False,
    device: str | None = None,
    imports: Sequence[Path] = (),
    **options: Any,
) -> tuple[int, int, dict[str, list[str]]]:
    """Compute the cells that have no result yet; a group that fails does not stop the others.

    Args:
        groups: of :func:`plan`.
        results: the workbook.
        gpus: go through ``dist_test.sh`` with so many processes; None computes in this process.
        force: repeat what has a result.
        device: see :func:`clearclip.evaluation.run.evaluate`.
        imports: files with methods of the user's own, for other processes.
        **options: see :func:`clearclip.evaluation.run.evaluate`: ``batch_size``, ``on_error``.

    Returns:
        How many rows were computed and how many had a result; the labels of the groups that failed, by the reason.
    """
    known = [] if force else read_records(results)[0]
    left = [[row for row in group.rows if not has_result(group, row, known, device)] for group in groups]
    todo = [replace(group, rows=rows) for group, rows in zip(groups, left, strict=True) if rows]
    skipped, done, failed = sum(len(group.rows) for group in groups) - sum(map(len, left)), 0, {}
    options |= {"device": device, "resume": "no" if force else "auto"}
    model, loaded, started, finished = None, None, time.monotonic(), 0
    for number, group in enumerate(todo, start=1):
        elapsed = time.monotonic() - started
        ahead = sum(other.images for other in todo[number - 1 :])
        estimate = f", about {_clock(elapsed / finished * ahead)} left" if finished else ""
        print(f"[{number}/{len(todo)}] {group.label} (elapsed {_clock(elapsed)}{estimate})", flush=True)
        before = len(read_records(results)[0])
        try:
            if gpus:
                _run_processes(group, results, gpus, imports, options)
            else:
                settings = group.settings
                if loaded != (key := _weights(settings)):
                    model = loaded = None  # frees its memory before the next one is loaded
                    model, loaded = ClearCLIP.from_settings(replace(settings, device=device or settings.device)), key
                _run_here(group, results, model, options)
        except Exception as error:  # whatever stops one group, the others go on
            why = " ".join(str(error).split()) or type(error).__name__
            print("    failed" if why in failed else f"    failed: {why}")
            failed.setdefault(why, []).append(group.label)
        else:
            labels = {group.method(row).label: row for row in group.rows}
            for record in read_records(results)[0][before:]:
                if record["dataset"] == group.dataset and record["method"] in labels:
                    done += 1
                    print(f"    {labels.pop(record['method']).system}: mIoU {record['mIoU']:.2f}", flush=True)
        finished += group.images
    return done, skipped, failed


def _weights(settings: ModelSettings) -> tuple:
    """What groups have in common that share a model."""
    # BLIP's positional embeddings are resized for one window.
    crop = settings.slide_crop if settings.clip_type == "BLIP" else None
    return (crop, *(getattr(settings, name) for name in (*NAMING, "normalization", "precision")))


def _run_here(group: Group, results: Path, model: ClearCLIP, options: Mapping[str, Any]) -> None:
    found = evaluate(
        group.cfg,
        work_dir(group),
        methods=[group.method(row) for row in group.rows],
        model=model,
        overrides=group.overrides,
        limit=group.limit,
        **options,
    )
    append([one.record for one in found], results)


def _run_processes(group: Group, results: Path, gpus: int, imports: Sequence[Path], options: Mapping[str, Any]) -> None:
    script = CONFIGS.parent / "dist_test.sh"
    if not script.is_file():
        raise UserError("--gpus needs dist_test.sh, which a clone of the repository has, not an installed package")
    given = {"results": results, "work_dir": work_dir(group), "limit": group.limit, **options}
    words = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items() if value is not None]
    words += [("--import", str(file)) for file in imports]
    methods = (group.method(row).settings for row in group.rows)
    command = [
        *("bash", str(script), str(group.cfg.filename), *(word for pair in words for word in pair)),
        *("--methods", *map(json.dumps, methods)),
        *("--cfg-options", *(f"{name}={value}" for name, value in group.overrides.items())),
    ]
    environment = {**os.environ, "PYTHON": sys.executable, "GPUS": str(gpus)}
    # Its progress and its errors go to the terminal.
    code = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment).returncode
    if code:
        killed = code in (-9, 137)
        raise UserError("it was killed, perhaps because memory ran out" if killed else f"exit code {code}, see above")


def work_dir(group: Group) -> Path:
    """Where the journals of a group are kept."""
    row = group.rows[0]
    name = f"{' '.join(row.naming.values())} {group.dataset} {group.protocol}"
    return Path("work_dirs") / "tables" / name.replace("/", "-").replace(" ", "_")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

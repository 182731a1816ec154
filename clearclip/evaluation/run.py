"""One evaluation, from a config to its scores."""

from __future__ import annotations

import datetime
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from clearclip.data.check import quick_check
from clearclip.devices import choose_device
from clearclip.errors import UserError
from clearclip.evaluation.configs import dataset_name, load_config, result_settings
from clearclip.evaluation.journal import Journal
from clearclip.evaluation.launch import finish_processes, start_processes
from clearclip.evaluation.loop import EvaluationLoop
from clearclip.evaluation.metric import ConfusionMetric, Scores
from clearclip.segmentor import ClearCLIPSegmentation


@dataclass
class Evaluation:
    """What an evaluation found.

    Attributes:
        dataset: the benchmark's name.
        classes: names in label order.
        scores: the scores.
        images: number of images counted.
        failures: images that were skipped, with the reason.
        seconds: of the evaluation loop, text and model loading left out.
        settings: everything that changes the result.
        started: when, ISO 8601 in UTC.
        is_main: whether this is the process that reports and records (rank 0).
    """

    dataset: str
    classes: list[str]
    scores: Scores
    images: int
    failures: dict[str, str]
    seconds: float
    settings: dict[str, Any]
    is_main: bool = True
    started: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    )


def evaluate(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    *,
    overrides: dict[str, Any] | None = None,
    data_root: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    limit: int | None = None,
    launcher: str = "none",
    resume: str = "no",
    on_error: str = "stop",
    on_result: Callable[[Any, list[str], list[list[int]]], None] | None = None,
) -> Evaluation:
    """Evaluate a config.

    Args:
        config: a config file, or a config that is loaded already.
        work_dir: where the journal and MMEngine's log go; default ``work_dirs/<config>``.
        overrides: dotted names to values, merged into the config.
        data_root, limit: see :func:`~clearclip.evaluation.configs.load_config`; the first ``limit`` images only.
        device: default the config's, else MMEngine's choice.
        batch_size: images per batch; default: the config's, 8 on a GPU.
        workers: processes that read images; default: the config's, up to 16 on a GPU.
        launcher: "none", "pytorch" (torchrun) or "slurm".
        resume: "yes" goes on with the images that an earlier run in ``work_dir`` did not finish, "auto" does so if
            there is one with the same settings, "no" starts anew.
        on_error: "stop" or "skip" images that cannot be used.
        on_result: called with every predicted sample, the class names and the palette.

    Returns:
        The result, the same on every rank.

    Raises:
        UserError: whatever a user can mend; nothing is recorded then.
    """
    if on_error not in ("stop", "skip"):
        raise UserError(f"on_error must be 'stop' or 'skip', not {on_error!r}")
    cfg = config if isinstance(config, Config) else load_config(config, overrides, data_root)
    loader = cfg.test_dataloader
    for name, value, least in (
        ("limit", limit, 1),
        ("batch size", loader.setdefault("batch_size", 1) if batch_size is None else batch_size, 1),
        ("workers", loader.setdefault("num_workers", 0) if workers is None else workers, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"{name} must be at least {least}, not {value}")
    device = device or cfg.model.get("device")
    for remark in quick_check(cfg):
        warnings.warn(f"{dataset_name(cfg)}: {remark}", stacklevel=2)
    start_processes(launcher, device)
    target = choose_device(device)
    work_dir = Path(work_dir or Path("work_dirs") / Path(cfg.filename or "config").stem)
    try:
        result = _run(cfg, work_dir, target, batch_size, workers, limit, launcher, resume, on_error, on_result)
    finally:
        logging.shutdown()
    if launcher != "none":
        finish_processes()
    return result


def _run(
    cfg: Config,
    work_dir: Path,
    device: torch.device,
    batch_size: int | None,
    workers: int | None,
    limit: int | None,
    launcher: str,
    resume: str,
    on_error: str,
    on_result: Callable[[Any, list[str], list[list[int]]], None] | None,
) -> Evaluation:
    options = cfg.model.to_dict()
    if options.pop("type") != "ClearCLIPSegmentation":
        raise UserError(f"{cfg.filename}: model.type must be ClearCLIPSegmentation, not {cfg.model.type}")
    try:
        segmentor = ClearCLIPSegmentation(**{**options, "device": str(device)})
    except TypeError as error:
        raise UserError(
            f"{cfg.filename}: model does not fit: {error}; its settings are the arguments in clearclip/segmentor.py"
        ) from error
    settings = result_settings(cfg, segmentor.model, limit)
    journal = Journal(work_dir / "journal", settings, resume)
    if journal.finished and dist.get_rank() == 0:
        print(f"resuming: {len(journal.finished)} images are finished")
    on_gpu = device.type == "cuda"
    loader = cfg.test_dataloader
    loader.batch_size = batch_size or (max(8, loader.batch_size) if on_gpu else loader.batch_size)
    loader.num_workers = workers if workers is not None else min(16, os.cpu_count()) if on_gpu else loader.num_workers
    loader.pin_memory = on_gpu
    loader.persistent_workers = False
    loader.sampler = dict(type="DefaultSampler", shuffle=False, round_up=False)
    loader.dataset = dict(
        type="CheckedDataset",
        dataset={**loader.dataset, "test_mode": True},
        limit=limit,
        finished=frozenset(journal.finished),
    )
    cfg.work_dir = str(work_dir)
    cfg.launcher = launcher
    runner = _build_runner(cfg, segmentor)
    metric = ConfusionMetric(journal)
    # Given as objects: a runner copies what it is given as configs, open files and counters included.
    try:
        loop = EvaluationLoop(runner, loader, Evaluator(metric), on_error, on_result)
    except TypeError as error:
        raise UserError(f"{cfg.filename}: test_dataloader does not fit: {error}; mend its settings") from error
    runner._test_loop = loop
    classes = list(loop.dataloader.dataset.metainfo["classes"])
    if len(segmentor.classes) != len(classes):
        raise UserError(
            f"{len(segmentor.classes)} class names for {dataset_name(cfg)}, which has "
            f"{len(classes)} classes; mend the names file"
        )
    started = time.perf_counter()
    runner.test()
    seconds = time.perf_counter() - started
    journal.close()
    return Evaluation(
        dataset=dataset_name(cfg),
        classes=classes,
        scores=metric.scores,
        images=metric.images,
        failures=metric.failures,
        seconds=seconds,
        settings=settings,
        is_main=dist.get_rank() == 0,
    )


def _build_runner(cfg: Config, segmentor: torch.nn.Module) -> Runner:
    """MMEngine's runner around a segmentor that is built already (so that its errors are ours)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Runner(
            model=segmentor,
            work_dir=cfg.work_dir,
            # The loop is put in afterwards; the runner wants all three or none.
            test_dataloader=cfg.test_dataloader,
            test_evaluator=dict(type="ConfusionMetric"),
            test_cfg=dict(type="EvaluationLoop"),
            default_hooks=cfg.get("default_hooks"),
            custom_hooks=cfg.get("custom_hooks"),
            launcher=cfg.launcher,
            env_cfg=cfg.get("env_cfg", {}),
            log_level=cfg.get("log_level", "ERROR"),
            default_scope="mmseg",
            experiment_name=f"{Path(cfg.filename or 'config').stem}_{time.strftime('%Y%m%d_%H%M%S')}",
            cfg=dict(model_wrapper_cfg=dict(type="Replica")),
        )

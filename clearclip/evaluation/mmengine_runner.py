"""MMEngine's runner and loader around objects that exist already."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.evaluator import JournaledEvaluator
from clearclip.evaluation.processes import GroupStopHook, cpus_per_process
from clearclip.evaluation.segmentor import ClearCLIPSegmentation, FrozenModelWrapper

_experiment_numbers = itertools.count()  # MMEngine wants another name for every experiment of a process


def other_metrics(cfg: Config) -> list[dict[str, Any]]:
    """The metrics of a config beside ours, which every evaluation has."""
    evaluators = cfg.get("test_evaluator") or []
    if not isinstance(evaluators, list):
        evaluators = [evaluators]
    return [metric for metric in evaluators if "ConfusionMetric" not in str(metric.get("type"))]


def build_loader(
    cfg: Config,
    dataset: CheckedDataset,
    batch_size: int | None = None,
    workers: int | None = None,
    device: torch.device | None = None,
) -> torch.utils.data.DataLoader:
    """A checked dataset in batches; what the config does not say is chosen for this machine."""
    on_gpu = device is not None and device.type == "cuda"
    options: dict[str, Any] = dict(
        batch_size=32 if on_gpu else 1,
        num_workers=min(16 if on_gpu else 2, cpus_per_process()),
        pin_memory=on_gpu,
        collate_fn=dict(type="pseudo_collate"),
        sampler={},
    )
    options.update(cfg.test_dataloader.to_dict())
    if batch_size is not None:
        options["batch_size"] = batch_size
    if workers is not None:
        options["num_workers"] = workers
    options["num_workers"] = min(options["num_workers"], len(dataset))  # more of them would have nothing to read
    options["persistent_workers"] = False
    # No image twice, however many processes there are.
    options["sampler"] = {"type": "DefaultSampler", "shuffle": False, **options["sampler"], "round_up": False}
    return Runner.build_dataloader({**options, "dataset": dataset})


def build_runner(
    cfg: Config,
    segmentor: ClearCLIPSegmentation,
    loader: torch.utils.data.DataLoader,
    evaluator: JournaledEvaluator,
    work_dir: Path,
    launcher: str,
    hooks: Sequence[Hook],
) -> Runner:
    """MMEngine's runner of an evaluation. Objects are given to it: configs it would copy, with all that is in them."""
    experiment = f"{Path(cfg.filename or 'config').stem}_{os.getpid()}_{next(_experiment_numbers)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = _EvaluationRunner(
            model=FrozenModelWrapper(segmentor),
            work_dir=str(work_dir),
            test_dataloader=loader,
            test_evaluator=evaluator,
            test_cfg=cfg.get("test_cfg") or dict(type="TestLoop"),
            default_hooks=cfg.get("default_hooks"),
            custom_hooks=[*(cfg.get("custom_hooks") or []), GroupStopHook(), *hooks],
            launcher=launcher,
            randomness=cfg.get("randomness") or dict(seed=None),
            env_cfg=cfg.get("env_cfg") or {},
            visualizer=cfg.get("visualizer") if _may_draw(cfg) else _NoVisualizer(),
            log_level=cfg.get("log_level") or "ERROR",
            default_scope="mmseg",
            experiment_name=experiment,
        )
    runner.test_loop  # noqa: B018 (built when it is first asked for)
    return runner


class _EvaluationRunner(Runner):
    """MMEngine's, without its list of the machine's compilers: one that is missing prints "gcc: not found"."""

    def _log_env(self, env_cfg: dict) -> None:
        pass

    def dump_config(self) -> None:
        """The resolved config is written elsewhere; this runner is made of objects and has none."""

    def build_visualizer(self, visualizer: Any = None) -> Any:
        if isinstance(visualizer, _NoVisualizer):
            return visualizer
        return super().build_visualizer(visualizer)


class _NoVisualizer:
    """In the place of MMEngine's visualizer where nothing is drawn: making one takes as long as some images."""

    dataset_meta: Mapping[str, Any] | None = None

    def add_config(self, config: Config, **options: Any) -> None:
        """The config is kept beside pictures, and there are none."""

    def close(self) -> None:
        """Nothing was opened."""


def _may_draw(cfg: Config) -> bool:
    """Whether anything in a config could draw or write through MMEngine's visualizer."""
    default_hooks = cfg.get("default_hooks") or {}
    # MMEngine has a logger unless a config says None.
    logs = default_hooks.get("logger", True) is not None
    return bool(logs or default_hooks.get("visualization") or cfg.get("custom_hooks") or other_metrics(cfg))

"""One evaluation, from a config to its scores, for any number of methods at once."""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmseg.registry import MODELS

from clearclip.evaluation.checked_dataset import CheckedDataset, reading
from clearclip.evaluation.config import building, dataset_name, load_config, model_settings
from clearclip.evaluation.dataset_report import quick_check
from clearclip.evaluation.evaluator import JournaledEvaluator
from clearclip.evaluation.facts import method_facts, run_facts
from clearclip.evaluation.hooks import ProgressHook
from clearclip.evaluation.journal import Journal
from clearclip.evaluation.launchers import launcher_of_environment
from clearclip.evaluation.metric import ConfusionMetric, Evaluation
from clearclip.evaluation.overrides import check_given_twice, check_merged
from clearclip.evaluation.processes import StopTogether, agree, own_cpus, process_group, together
from clearclip.evaluation.segmentor import ClearCLIPSegmentation, Replica
from clearclip.methods import Method, build_method
from clearclip.model import ClearCLIP
from clearclip.utils.devices import choose_device
from clearclip.utils.errors import UserError

_numbers = itertools.count()  # MMEngine wants another name for every experiment of a process


def evaluate(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    *,
    methods: Sequence[str | dict | Method] | None = None,
    model: ClearCLIP | None = None,
    overrides: dict[str, Any] | None = None,
    data_root: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    limit: int | None = None,
    launcher: str | None = None,
    resume: str = "no",
    on_error: str = "stop",
    hooks: Sequence[Hook] = (),
) -> list[Evaluation]:
    """Evaluate a config.

    Args:
        config: a config file, or a config that :func:`~clearclip.evaluation.config.load_config` has loaded.
        work_dir: where the journal and MMEngine's log go; default ``work_dirs/<config>``.
        methods: rows to compare; blocks that they share run once. None means the config's own method.
        model: a model with the config's weights that is loaded already.
        overrides: dotted names to values, merged into the config.
        data_root: see :func:`~clearclip.evaluation.config.load_config`.
        device: default the config's, else the best there is.
        batch_size: images per batch; default: the config's, else 8 on a GPU and 1 without.
        workers: processes that read images; default: the config's, else what the CPUs of this host allow.
        limit: the first so many images only.
        launcher: "none", "pytorch" (torchrun) or "slurm"; default: what the environment says.
        resume: "yes" goes on with the images that an earlier run in ``work_dir`` did not finish, "auto" does so if
            there is one with the same settings, "no" starts again.
        on_error: "stop" or "skip" images that cannot be used.
        hooks: MMEngine hooks, in addition to the config's.

    Returns:
        An evaluation for each method, in order; the same on every rank.

    Raises:
        UserError: whatever a user can fix; nothing is recorded then.
    """
    if on_error not in ("stop", "skip"):
        raise UserError(f"on_error must be 'stop' or 'skip', not {on_error!r}")
    launcher = launcher or launcher_of_environment()
    with process_group(launcher, device):
        with together("before the first image"):
            if isinstance(config, Config):
                check_merged(config.to_dict(), overrides or {}, data_root)
            cfg = config if isinstance(config, Config) else load_config(config, overrides, data_root)
            named = f"config {cfg.filename}"
            with building(named, overrides), DefaultScope.overwrite_default_scope("mmseg"):
                given = {"device": device, "batch_size": batch_size, "workers": workers, "methods": methods}
                check_given_twice(overrides or {}, **given)
                _check_numbers(cfg, limit=limit, batch_size=batch_size, num_workers=workers)
                for remark in quick_check(cfg, on_error):
                    warnings.warn(f"{dataset_name(cfg)}: {remark}", stacklevel=2)
                dataset = CheckedDataset(cfg.test_dataloader.dataset, limit)
            settings = replace(model_settings(cfg), device=choose_device(device or cfg.model.get("device")))
            model = model or ClearCLIP.from_settings(settings)
            with building(named, overrides):
                wanted = [build_method(one) for one in methods or cfg.model.get("methods") or [settings.chosen_method]]
                common = run_facts(cfg, dataset, settings, model.device, model.precision, hooks, model)
        facts = {**common, "methods": [method_facts(method) for method in wanted]}
        agree("settings or data", facts)
        with building(named, overrides), DefaultScope.overwrite_default_scope("mmseg"):
            own = {"methods": wanted, "device": settings.device, "model": model}
            segmentor = MODELS.build({**cfg.model.to_dict(), **own})
            work_dir = Path(work_dir or Path("work_dirs") / Path(cfg.filename or "config").stem)
            journal = Journal(work_dir / "journal", facts, dataset.total, len(wanted), resume)
        with closing(journal):
            with building(named, overrides), DefaultScope.overwrite_default_scope("mmseg"):
                dataset.leave_out(journal.finished)
                if journal.finished and dist.get_rank() == 0:
                    print(f"resuming: {len(journal.finished)} images are finished")
                metric = ConfusionMetric(on_error, finished=journal.finished)
                evaluator = JournaledEvaluator(metric, _other_metrics(cfg), journal)
                batches = build_loader(cfg, dataset, batch_size, workers, model.device)
                progress = ProgressHook()
                runner = _build_runner(cfg, segmentor, batches, evaluator, work_dir, launcher, [progress, *hooks])
                runner.test_loop  # noqa: B018 (built when it is first asked for)
            started = time.perf_counter()
            with reading(), closing(progress), _how_to_go_on(resume):
                other_scores = runner.test()
            seconds = time.perf_counter() - started
        is_main = dist.get_rank() == 0
    if other_scores and is_main:
        which = f" ({wanted[0].label})" if len(wanted) > 1 else ""
        listed = ", ".join(f"{name} {value}" for name, value in other_scores.items())
        print(f"other metrics of the config{which}: {listed}")
    return [
        Evaluation(
            classes=list(dataset.metainfo["classes"]),
            scores=scores,
            images=metric.images,
            failures=metric.failures,
            seconds=seconds,
            images_per_second=len(dataset) / seconds,
            facts={**common, "method": method},
            is_main=is_main,
        )
        for method, scores in zip(facts["methods"], metric.scores, strict=True)
    ]


@contextmanager
def _how_to_go_on(resume: str) -> Iterator[None]:
    """Let Ctrl-C say what to do next."""
    try:
        yield
    except KeyboardInterrupt as error:
        command = "the same command" if resume == "auto" else "the same command with --resume"
        raise KeyboardInterrupt(f"what is finished is kept: {command} goes on") from error


def _check_numbers(cfg: Config, **given: int | None) -> None:
    for name, value in given.items():
        if value is None and name not in cfg.test_dataloader:
            continue
        value = cfg.test_dataloader.get(name) if value is None else value
        least, most = (0, 1024) if name == "num_workers" else (1, 1 << 31)
        # True is a whole number to Python; None would switch batches off.
        if type(value) is not int or not least <= value <= most:
            label = name.replace("num_", "").replace("_", " ")
            raise UserError(f"{label} must be a whole number of at least {least} and at most {most}, not {value!r}")


def _other_metrics(cfg: Config) -> list[dict[str, Any]]:
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
    options = {name: value for name, value in cfg.test_dataloader.to_dict().items() if name != "dataset"}
    defaults = dict(
        batch_size=8 if on_gpu else 1,
        num_workers=min(16 if on_gpu else 2, own_cpus()),
        pin_memory=on_gpu,
        collate_fn=dict(type="pseudo_collate"),
    )
    given = {"batch_size": batch_size, "num_workers": workers}
    options = {**defaults, **options, **{name: value for name, value in given.items() if value is not None}}
    options["num_workers"] = min(options["num_workers"], len(dataset))  # more of them would have nothing to read
    options["persistent_workers"] = False
    # No image twice, however many processes there are.
    options["sampler"] = {"type": "DefaultSampler", "shuffle": False, **options.get("sampler", {}), "round_up": False}
    return Runner.build_dataloader({**options, "dataset": dataset})


class _Runner(Runner):
    """MMEngine's, without its list of the machine's compilers: one that is missing prints "gcc: not found"."""

    def _log_env(self, env_cfg: dict) -> None:
        pass

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
    return bool(logs or default_hooks.get("visualization") or cfg.get("custom_hooks") or _other_metrics(cfg))


def _build_runner(
    cfg: Config,
    segmentor: ClearCLIPSegmentation,
    loader: torch.utils.data.DataLoader,
    evaluator: JournaledEvaluator,
    work_dir: Path,
    launcher: str,
    hooks: Sequence[Hook],
) -> Runner:
    """MMEngine's runner around objects that exist already: it would copy what it is given as configs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Runner(
            model=Replica(segmentor),
            work_dir=str(work_dir),
            test_dataloader=loader,
            test_evaluator=evaluator,
            test_cfg=cfg.get("test_cfg") or dict(type="TestLoop"),
            default_hooks=cfg.get("default_hooks"),
            custom_hooks=[*(cfg.get("custom_hooks") or []), StopTogether(), *hooks],
            launcher=launcher,
            randomness=cfg.get("randomness") or dict(seed=None),
            env_cfg=cfg.get("env_cfg") or {},
            visualizer=cfg.get("visualizer") if _may_draw(cfg) else _NoVisualizer(),
            log_level=cfg.get("log_level") or "ERROR",
            default_scope="mmseg",
            experiment_name=f"{Path(cfg.filename or 'config').stem}_{os.getpid()}_{next(_numbers)}",
        )

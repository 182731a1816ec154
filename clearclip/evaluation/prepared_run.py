"""Everything of an evaluation before its first image: config, dataset, model, methods, facts, journal and runner."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import MODELS

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import config_text, dataset_name, explaining_errors, load_config, model_settings
from clearclip.evaluation.data_watch import DataWatch
from clearclip.evaluation.dataset_report import quick_check
from clearclip.evaluation.evaluator import JournaledEvaluator
from clearclip.evaluation.hooks import ProgressHook
from clearclip.evaluation.journal import Journal
from clearclip.evaluation.launchers import launcher_of_environment
from clearclip.evaluation.loaded_model import LoadedModel
from clearclip.evaluation.metric import ConfusionMetric
from clearclip.evaluation.mmengine_runner import build_loader, build_runner, other_metrics
from clearclip.evaluation.overrides import check_given_twice, check_merged
from clearclip.evaluation.own_code import own_classes, own_code_facts
from clearclip.evaluation.processes import check_same_everywhere, failing_together, process_group
from clearclip.evaluation.run_facts import method_facts, run_facts
from clearclip.evaluation.segmentor import ClearCLIPSegmentation
from clearclip.methods import Method, build_method
from clearclip.model import ClearCLIP
from clearclip.utils.devices import choose_device
from clearclip.utils.errors import UserError
from clearclip.utils.files import write_text_atomically


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a config is evaluated: see the arguments of :func:`clearclip.evaluation.run.evaluate`."""

    methods: Sequence[str | dict | Method] | None = None
    model: ClearCLIP | LoadedModel | None = None
    overrides: Mapping[str, Any] | None = None
    data_root: str | None = None
    device: str | None = None
    limit: int | None = None
    imports: Sequence[str | Path] = ()
    batch_size: int | None = None
    workers: int | None = None
    launcher: str | None = None
    resume: str = "no"
    on_error: str = "stop"
    hooks: Sequence[Hook] = ()


@dataclass(frozen=True)
class PreparedRun:
    """All that a run consists of.

    Attributes:
        cfg: its config.
        options: what the caller asked for, the launcher chosen.
        dataset: the images.
        watch: notices where these are written.
        loaded: the model.
        methods: how the last blocks are computed.
        facts: of :mod:`clearclip.evaluation.run_facts`.
        segmentor, metric, progress, runner: what MMEngine runs.
    """

    cfg: Config
    options: RunOptions
    dataset: CheckedDataset
    watch: DataWatch
    loaded: LoadedModel
    methods: Sequence[Method]
    facts: dict[str, Any]
    segmentor: ClearCLIPSegmentation
    metric: ConfusionMetric
    progress: ProgressHook
    runner: Runner


@contextmanager
def prepared_run(
    config: str | Path | Config, work_dir: str | Path | None = None, options: RunOptions | None = None
) -> Iterator[PreparedRun]:
    """Prepare a run; its journal is open, and its process group joined, as long as the context lasts.

    Args:
        config, work_dir: of :func:`clearclip.evaluation.run.evaluate`.
        options: the other arguments.

    Raises:
        UserError: whatever a user can fix.
    """
    options = options or RunOptions()
    options = replace(options, launcher=options.launcher or launcher_of_environment())
    if options.on_error not in ("stop", "skip"):
        raise UserError(f"on_error must be 'stop' or 'skip', not {options.on_error!r}")
    with process_group(options.launcher, options.device):
        with failing_together("before the first image"):
            cfg = _read_config(config, options)
            with _building(cfg, options):
                dataset = _build_dataset(cfg, options)
            # Before any of its files is hashed.
            watch = DataWatch(dataset)
            loaded = _load_model(cfg, options)
            with _building(cfg, options):
                methods = _build_methods(cfg, loaded, options)
                facts = _facts(cfg, dataset, loaded, methods, options)
        check_same_everywhere("settings or data", facts)
        folder = Path(work_dir or Path("work_dirs") / Path(cfg.filename or "config").stem)
        with closing(Journal(folder / "journal", facts, dataset.total, len(methods), options.resume)) as journal:
            with _building(cfg, options):
                segmentor = _build_segmentor(cfg, loaded, methods, options)
                dataset.leave_out(journal.finished)
                _report_resumption(len(journal.finished), facts)
                metric = ConfusionMetric(options.on_error, finished=journal.finished)
                evaluator = JournaledEvaluator(metric, other_metrics(cfg), journal)
                loader = build_loader(cfg, dataset, options.batch_size, options.workers, loaded.model.device)
                progress = ProgressHook()
                hooks = [progress, *options.hooks]
                runner = build_runner(cfg, segmentor, loader, evaluator, folder, options.launcher, hooks)
            _write_config(cfg, Path(runner.log_dir))
            yield PreparedRun(cfg, options, dataset, watch, loaded, methods, facts, segmentor, metric, progress, runner)


def _building(cfg: Config, options: RunOptions) -> Any:
    return explaining_errors(f"config {cfg.filename}", options.overrides)


def _read_config(config: str | Path | Config, options: RunOptions) -> Config:
    """The config with its overrides."""
    overrides = dict(options.overrides or {})
    if isinstance(config, Config):
        check_merged(config.to_dict(), overrides, options.data_root)
        return config
    return load_config(config, overrides, options.data_root)


def _build_dataset(cfg: Config, options: RunOptions) -> CheckedDataset:
    """The dataset, after the check that takes a moment."""
    check_given_twice(
        options.overrides or {},
        device=options.device,
        batch_size=options.batch_size,
        workers=options.workers,
        methods=options.methods,
    )
    _check_numbers(cfg, limit=options.limit, batch_size=options.batch_size, num_workers=options.workers)
    for remark in quick_check(cfg, options.on_error):
        warnings.warn(f"{dataset_name(cfg)}: {remark}", stacklevel=2)
    return CheckedDataset(cfg.test_dataloader.dataset, options.limit)


def _check_numbers(cfg: Config, **numbers: int | None) -> None:
    """Raise a UserError where a number, or the config's in its place, is no whole number or too small."""
    for name, number in numbers.items():
        if number is None:
            if name not in cfg.test_dataloader:
                continue
            number = cfg.test_dataloader.get(name)
        least, largest = (0, 1024) if name == "num_workers" else (1, 1 << 31)
        # True is a whole number to Python; None would switch batches off.
        if type(number) is not int or not least <= number <= largest:
            label = name.replace("num_", "").replace("_", " ")
            raise UserError(f"{label} must be a whole number of at least {least} and at most {largest}, not {number!r}")


def _load_model(cfg: Config, options: RunOptions) -> LoadedModel:
    """The model of the config, or the one that the caller has."""
    settings = replace(model_settings(cfg), device=choose_device(options.device or cfg.model.get("device")))
    if options.model is None:
        return LoadedModel.load(settings)
    if isinstance(options.model, LoadedModel):
        return replace(options.model, settings=settings)
    return LoadedModel.given(options.model, settings)


def _build_methods(cfg: Config, loaded: LoadedModel, options: RunOptions) -> list[Method]:
    """The methods that were asked for, or the config's; second encoders are loaded for them."""
    descriptions = options.methods or cfg.model.get("methods") or [loaded.settings.chosen_method]
    methods = [build_method(description) for description in descriptions]
    for method in methods:
        loaded.model.check(method)
    return methods


def _facts(
    cfg: Config, dataset: CheckedDataset, loaded: LoadedModel, methods: Sequence[Method], options: RunOptions
) -> dict[str, Any]:
    """The facts of a run, and of each of its methods as "methods"."""
    facts = run_facts(cfg, dataset, loaded.settings, loaded.model.device, loaded.model.precision)
    facts["weights"] = loaded.facts
    own_code = own_code_facts(own_classes(cfg, dataset, options.hooks), options.imports)
    if own_code:
        facts["own code"] = own_code
    model_options = loaded.model.image_encoder.method_options
    facts["methods"] = [method_facts(method, model_options) for method in methods]
    return facts


def _build_segmentor(
    cfg: Config, loaded: LoadedModel, methods: Sequence[Method], options: RunOptions
) -> ClearCLIPSegmentation:
    """MMSegmentation's face of the model."""
    changes = {"methods": methods, "device": loaded.settings.device, "model": loaded.model}
    segmentor = MODELS.build({**cfg.model.to_dict(), **changes})
    # Other metrics and pictures would take marks for labels.
    needs_labels = bool(other_metrics(cfg) or options.hooks)
    segmentor.marks_invalid = loaded.model.device.type == "cuda" and not needs_labels
    return segmentor


def _report_resumption(finished_images: int, facts: Mapping[str, Any]) -> None:
    """Say that a run goes on, and what of code of the user's own was not compared."""
    if finished_images == 0 or dist.get_rank() != 0:
        return
    print(f"resuming: {finished_images} images are finished")
    own_labels = [method["label"] for method in facts["methods"] if "source" in method]
    if own_labels or "own code" in facts:
        names = ", ".join(own_labels) or "code of your own"
        print(f"{names}: its files are the same; what else it reads is not compared (start again where it changed)")


def _write_config(cfg: Config, folder: Path) -> None:
    """Write the config as it is evaluated, overrides and paths resolved, beside MMEngine's log."""
    if dist.get_rank() == 0:
        write_text_atomically(folder / "config.py", config_text(cfg))

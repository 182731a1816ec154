"""One evaluation, from a config to its scores, for any number of methods at once."""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import MODELS

from clearclip.evaluation.checked_dataset import CheckedDataset, reading
from clearclip.evaluation.config import building, config_text, dataset_name, load_config, model_settings
from clearclip.evaluation.dataset_report import quick_check
from clearclip.evaluation.evaluator import JournaledEvaluator
from clearclip.evaluation.hooks import ProgressHook
from clearclip.evaluation.journal import Journal
from clearclip.evaluation.launchers import launcher_of_environment
from clearclip.evaluation.metric import ConfusionMetric, Evaluation
from clearclip.evaluation.open_files import sharing_that_fits
from clearclip.evaluation.overrides import check_given_twice, check_merged
from clearclip.evaluation.own_code import own_classes, own_code_facts
from clearclip.evaluation.processes import StopTogether, agree, gather, own_cpus, process_group, together
from clearclip.evaluation.published_run import PreparedRun, not_in_table_because
from clearclip.evaluation.run_facts import check_unchanged, file_states, method_facts, run_facts
from clearclip.evaluation.segmentor import ClearCLIPSegmentation, Replica
from clearclip.evaluation.weight_facts import LoadedModel
from clearclip.methods import Method, build_method
from clearclip.model import ClearCLIP
from clearclip.utils.continuation import command_to_continue
from clearclip.utils.devices import choose_device
from clearclip.utils.errors import UserError
from clearclip.utils.files import write_text_atomically

_UNSTEADY = ["it gave other labels when it saw an image twice"]
_numbers = itertools.count()  # MMEngine wants another name for every experiment of a process


@dataclass(frozen=True)
class RunOptions:
    """How a run is done, whatever is computed: see the arguments of :func:`evaluate`."""

    batch_size: int | None = None
    workers: int | None = None
    launcher: str | None = None
    resume: str = "no"
    on_error: str = "stop"
    hooks: Sequence[Hook] = ()


def evaluate(config: str | Path | Config, work_dir: str | Path | None = None, **options: Any) -> list[Evaluation]:
    """Evaluate a config.

    Args:
        config: a config file, or a config that :func:`~clearclip.evaluation.config.load_config` has loaded.
        work_dir: where the journal and MMEngine's log go; default ``work_dirs/<config>``.
        methods: rows to compare; blocks that they share run once. None means the config's own method.
        model: a model with the config's weights that is loaded already. Only a :class:`LoadedModel` fills cells of
            published tables: of any other nobody knows what was done to it.
        overrides: dotted names to values, merged into the config.
        data_root: see :func:`~clearclip.evaluation.config.load_config`.
        device: default the config's, else the best there is.
        limit: the first so many images only.
        imports: files of your own that were imported for this run.
        batch_size: images per batch; default: the config's, else 8 on a GPU and 1 without.
        workers: processes that read images; default: the config's, else what the CPUs of this host allow.
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
    with prepared_run(config, work_dir, **options) as run:
        return _collect(run, _run(run))


@contextmanager
def prepared_run(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    *,
    methods: Sequence[str | dict | Method] | None = None,
    model: ClearCLIP | LoadedModel | None = None,
    overrides: dict[str, Any] | None = None,
    data_root: str | None = None,
    device: str | None = None,
    limit: int | None = None,
    imports: Sequence[str | Path] = (),
    **options: Any,
) -> Iterator[PreparedRun]:
    """All that :func:`evaluate` does before the first image, with the reasons why the run fills no published cell.

    Args: see :func:`evaluate`.
    """
    how = RunOptions(**options)
    how = replace(how, launcher=how.launcher or launcher_of_environment())
    if how.on_error not in ("stop", "skip"):
        raise UserError(f"on_error must be 'stop' or 'skip', not {how.on_error!r}")
    with process_group(how.launcher, device):
        with together("before the first image"):
            if isinstance(config, Config):
                check_merged(config.to_dict(), overrides or {}, data_root)
            cfg = config if isinstance(config, Config) else load_config(config, overrides, data_root)
            with building(f"config {cfg.filename}", overrides):
                given = {"device": device, "batch_size": how.batch_size, "workers": how.workers, "methods": methods}
                check_given_twice(overrides or {}, **given)
                dataset = _checked_dataset(cfg, limit, how)
            loaded = _load_model(cfg, model, device)
            with building(f"config {cfg.filename}", overrides):
                wanted = methods or cfg.model.get("methods") or [loaded.settings.chosen_method]
                built_methods = [build_method(method) for method in wanted]
                facts = _facts(cfg, dataset, loaded, built_methods, imports, how.hooks)
        agree("settings or data", facts)
        work_dir = Path(work_dir or Path("work_dirs") / Path(cfg.filename or "config").stem)
        with closing(Journal(work_dir / "journal", facts, dataset.total, len(built_methods), how.resume)) as journal:
            with building(f"config {cfg.filename}", overrides):
                run = _prepare(cfg, dataset, loaded, built_methods, facts, imports, journal, work_dir, how)
                run.reasons = not_in_table_because(run)
            yield run


def _checked_dataset(cfg: Config, limit: int | None, how: RunOptions) -> CheckedDataset:
    _check_numbers(cfg, limit=limit, batch_size=how.batch_size, num_workers=how.workers)
    for remark in quick_check(cfg, how.on_error):
        warnings.warn(f"{dataset_name(cfg)}: {remark}", stacklevel=2)
    return CheckedDataset(cfg.test_dataloader.dataset, limit)


def _load_model(cfg: Config, model: ClearCLIP | LoadedModel | None, device: str | None) -> LoadedModel:
    settings = replace(model_settings(cfg), device=choose_device(device or cfg.model.get("device")))
    if model is None:
        return LoadedModel.load(settings)
    if isinstance(model, LoadedModel):
        return replace(model, settings=settings)
    return LoadedModel.given(model, settings)


def _facts(
    cfg: Config,
    dataset: CheckedDataset,
    loaded: LoadedModel,
    methods: Sequence[Method],
    imports: Sequence[str | Path],
    hooks: Sequence[Hook],
) -> dict[str, Any]:
    """The facts of a run and of its methods. Second encoders are loaded for them."""
    for method in methods:
        loaded.model.check(method)
    facts = run_facts(cfg, dataset, loaded.settings, loaded.model.device, loaded.model.precision)
    facts["weights"] = loaded.facts
    own_code = own_code_facts(own_classes(cfg, dataset, hooks), imports)
    if own_code:
        facts["own code"] = own_code
    return {**facts, "methods": [method_facts(method) for method in methods]}


def _prepare(
    cfg: Config,
    dataset: CheckedDataset,
    loaded: LoadedModel,
    methods: Sequence[Method],
    facts: dict[str, Any],
    imports: Sequence[str | Path],
    journal: Journal,
    work_dir: Path,
    how: RunOptions,
) -> PreparedRun:
    """Build everything up to MMEngine's runner."""
    changes = {"methods": methods, "device": loaded.settings.device, "model": loaded.model}
    segmentor = MODELS.build({**cfg.model.to_dict(), **changes})
    # Other metrics and pictures would take marks for labels.
    segmentor.marks_invalid = loaded.model.device.type == "cuda" and not (_other_metrics(cfg) or how.hooks)
    dataset.leave_out(journal.finished)
    if journal.finished and dist.get_rank() == 0:
        print(f"resuming: {len(journal.finished)} images are finished")
    metric = ConfusionMetric(how.on_error, finished=journal.finished)
    evaluator = JournaledEvaluator(metric, _other_metrics(cfg), journal)
    loader = build_loader(cfg, dataset, how.batch_size, how.workers, loaded.model.device)
    progress = ProgressHook()
    runner = _build_runner(cfg, segmentor, loader, evaluator, work_dir, how.launcher, [progress, *how.hooks])
    _keep_config(cfg, Path(runner.log_dir))
    runner.test_loop  # noqa: B018 (built when it is first asked for)
    return PreparedRun(cfg, dataset, loaded, methods, facts, imports, segmentor, runner, metric, progress, how)


def _run(run: PreparedRun) -> float:
    """Segment and count all images, and check that nothing was written in the meantime.

    Returns:
        Seconds.

    Raises:
        UserError: an image, a mask, the words or the weights are not what they were.
    """
    files = file_states(run.dataset)
    words = run.segmentor.text.features.clone()
    started = time.perf_counter()
    loader = run.runner.test_dataloader
    with reading(), sharing_that_fits(loader), closing(run.progress), _how_to_go_on(run.how.resume):
        scores = run.runner.test()
    seconds = time.perf_counter() - started
    with together("after the last image"):
        check_unchanged(run.dataset, files, run.facts)
        if run.loaded.changed() or not torch.equal(words, run.segmentor.text.features):
            names = ", ".join(method.label for method in run.methods)
            raise UserError(
                f"the model's weights or words are not what they were before the first image (methods: {names}); "
                "nothing was recorded: a method may not write to what it is given"
            )
    if scores and dist.get_rank() == 0:
        which = f" ({run.methods[0].label})" if len(run.methods) > 1 else ""
        listed = ", ".join(f"{name} {value}" for name, value in scores.items())
        print(f"other metrics of the config{which}: {listed}")
    return seconds


def _collect(run: PreparedRun, seconds: float) -> list[Evaluation]:
    """What the metric counted, as an evaluation for each method."""
    common = {name: value for name, value in run.facts.items() if name != "methods"}
    skipped = [f"{len(run.metric.failures)} images were skipped"] if run.metric.failures else []
    unsteady = set().union(*gather(run.segmentor.isolated_methods.unsteady))
    return [
        Evaluation(
            classes=list(run.dataset.metainfo["classes"]),
            scores=scores,
            images=run.metric.images,
            failures=run.metric.failures,
            seconds=seconds,
            images_per_second=len(run.dataset) / seconds,
            facts={**common, "method": of_method},
            is_main=dist.get_rank() == 0,
            not_in_table_because=reasons + skipped + (_UNSTEADY if of_method["label"] in unsteady else []),
        )
        for of_method, scores, reasons in zip(run.facts["methods"], run.metric.scores, run.reasons, strict=True)
    ]


@contextmanager
def _how_to_go_on(resume: str) -> Iterator[None]:
    """Let Ctrl-C say what to do next."""
    try:
        yield
    except KeyboardInterrupt as error:
        command = "the same command" if resume == "auto" else command_to_continue()
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


def _keep_config(cfg: Config, folder: Path) -> None:
    """Write the config as it was evaluated, overrides and paths resolved, beside MMEngine's log."""
    if dist.get_rank() == 0:
        write_text_atomically(folder / "config.py", config_text(cfg))


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
        batch_size=32 if on_gpu else 1,
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

    def dump_config(self) -> None:
        """The resolved config is written by :func:`_keep_config`; this runner is made of objects and has none."""

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

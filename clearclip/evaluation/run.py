"""One evaluation, from a config to its scores, for any number of methods at once."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.hooks import Hook

from clearclip.evaluation.checked_dataset import explaining_dead_workers
from clearclip.evaluation.config import explaining_errors
from clearclip.evaluation.evaluator import JournaledEvaluator
from clearclip.evaluation.loaded_model import LoadedModel
from clearclip.evaluation.metric import Evaluation
from clearclip.evaluation.open_files import sharing_that_fits
from clearclip.evaluation.prepared_run import PreparedRun, RunOptions, prepared_run
from clearclip.evaluation.processes import failing_together, values_of_all_processes
from clearclip.evaluation.published_run import not_published_because
from clearclip.methods import Method
from clearclip.model import ClearCLIP
from clearclip.utils.continuation import command_to_continue
from clearclip.utils.errors import UserError

_UNSTEADY = "it gave other labels when it saw an image twice"


def evaluate(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    *,
    methods: Sequence[str | dict | Method] | None = None,
    model: ClearCLIP | LoadedModel | None = None,
    overrides: Mapping[str, Any] | None = None,
    data_root: str | None = None,
    device: str | None = None,
    limit: int | None = None,
    imports: Sequence[str | Path] = (),
    batch_size: int | None = None,
    workers: int | None = None,
    launcher: str | None = None,
    resume: str = "no",
    on_error: str = "stop",
    hooks: Sequence[Hook] = (),
) -> list[Evaluation]:
    """Evaluate a config.

    >>> (evaluation,) = evaluate("cfg_miniature.py", methods=["ClearCLIP"], device="cpu")
    >>> evaluation.scores.miou

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
        batch_size: images per batch; default: the config's, else 32 on a GPU and 1 without.
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
    options = RunOptions(
        methods=methods,
        model=model,
        overrides=overrides,
        data_root=data_root,
        device=device,
        limit=limit,
        imports=imports,
        batch_size=batch_size,
        workers=workers,
        launcher=launcher,
        resume=resume,
        on_error=on_error,
        hooks=hooks,
    )
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    with prepared_run(config, work_dir, options) as run:
        with explaining_errors(f"config {run.cfg.filename}", overrides):
            # Before a method of the user's own can run, so that what it replaces shows.
            reasons = not_published_because(run)
        seconds = _segment_and_count(run)
        if run.segmentor.isolated_methods.has_own:
            _check_code(run, reasons)
        return _evaluations(run, started, seconds, reasons)


def _segment_and_count(run: PreparedRun) -> float:
    """Segment and count all images, and check that nothing was written in the meantime.

    Returns:
        Seconds.

    Raises:
        UserError: an image, a mask, the words or the weights are not what they were.
    """
    # A method is given copies, and might reach the originals all the same.
    words = run.segmentor.text.features.clone()
    started = time.perf_counter()
    with (
        explaining_dead_workers(),
        sharing_that_fits(run.runner.test_dataloader),
        closing(run.progress),
        _how_to_go_on(run.options.resume),
        _noting_the_last_batch(run.runner.test_loop.evaluator),
    ):
        scores = run.runner.test()
    seconds = time.perf_counter() - started
    with failing_together("after the last image"):
        run.watch.check(run.facts)
        if run.loaded.changed() or not torch.equal(words, run.segmentor.text.features):
            names = ", ".join(method.label for method in run.methods)
            raise UserError(
                f"the model's weights or words are not what they were before the first image (methods: {names}); "
                "nothing was recorded: a method may not write to what it is given"
            )
    if scores and dist.get_rank() == 0:
        suffix = f" ({run.methods[0].label})" if len(run.methods) > 1 else ""
        listed_scores = ", ".join(f"{name} {value}" for name, value in scores.items())
        print(f"other metrics of the config{suffix}: {listed_scores}")
    return seconds


def _check_code(run: PreparedRun, reasons_before: Sequence[Sequence[str]]) -> None:
    """Raise a UserError where a method of the user's own has put code in the place of what other methods run."""
    with failing_together("after the last image"):
        for reasons, earlier_reasons in zip(not_published_because(run), reasons_before, strict=True):
            added = [reason for reason in reasons if reason not in earlier_reasons]
            if added:
                raise UserError(f"{added[0]}, by a method of your own during the run; nothing was recorded")


def _evaluations(run: PreparedRun, started: str, seconds: float, reasons: Sequence[Sequence[str]]) -> list[Evaluation]:
    """What the metric counted, as an evaluation for each method.

    Args:
        run: whose images are counted.
        started: when the run began.
        seconds: that its loop took.
        reasons: for each method those of :func:`not_published_because`.
    """
    facts = {name: value for name, value in run.facts.items() if name != "methods"}
    # Each process has seen an image twice.
    unsteady_labels = set().union(*values_of_all_processes(run.segmentor.isolated_methods.unsteady))
    evaluations = []
    for method_facts, scores, reasons_before in zip(run.facts["methods"], run.metric.scores, reasons, strict=True):
        all_reasons = list(reasons_before)
        if run.metric.failures:
            all_reasons.append(f"{len(run.metric.failures)} images were skipped")
        if method_facts["label"] in unsteady_labels:
            all_reasons.append(_UNSTEADY)
        evaluation = Evaluation(
            classes=list(run.dataset.metainfo["classes"]),
            scores=scores,
            images=run.metric.images,
            failures=run.metric.failures,
            seconds=seconds,
            images_per_second=len(run.dataset) / seconds,
            facts={**facts, "method": method_facts},
            is_main=dist.get_rank() == 0,
            not_published_because=all_reasons,
            started=started,
        )
        evaluations.append(evaluation)
    return evaluations


@contextmanager
def _noting_the_last_batch(evaluator: JournaledEvaluator) -> Iterator[None]:
    """Keep what a GPU has counted when a run ends early: its last batch is read when the next one is processed."""
    try:
        yield
    except BaseException:
        # What ended the run is what a user must see, not that there is no more to be noted.
        with suppress(Exception):
            evaluator.finish()
        raise


@contextmanager
def _how_to_go_on(resume: str) -> Iterator[None]:
    """Let Ctrl-C say what to do next."""
    try:
        yield
    except KeyboardInterrupt as error:
        command = "the same command" if resume == "auto" else command_to_continue()
        raise KeyboardInterrupt(f"what is finished is kept: {command} goes on") from error

"""What ``eval.py`` does once its arguments have been read."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from clearclip.commands.eval_parser import make_parser
from clearclip.evaluation.hooks import PictureHook
from clearclip.evaluation.metric import Evaluation
from clearclip.evaluation.run import evaluate
from clearclip.results.records import append, check_results_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate as a command line says; see :func:`run`."""
    return run(make_parser().parse_args(arguments))


def run(args: Namespace) -> int:
    """Evaluate as the arguments say, record the scores and print them."""
    results = check_results_path(args.results)
    if args.no_cache:
        args.cfg_options["model.cached"] = False
    shown = args.show_dir is not None
    hooks = [PictureHook(Path(args.show_dir), args.show_every, args.show_first)] if shown else []
    names = ("methods", "data_root", "device", "batch_size", "workers", "limit", "launcher", "resume", "on_error")
    options = {name: getattr(args, name) for name in names}
    found = evaluate(args.config, args.work_dir, overrides=args.cfg_options, hooks=hooks, **options)
    if found[0].is_main:
        append([one.record for one in found], results)
        report(found)
        # Spreadsheets are needed at the end only.
        from clearclip.results.workbook import update_workbook

        update_workbook(results)
        print(f"{len(found)} row{'s' if len(found) > 1 else ''} added to {results}")
        for hook in hooks:
            print(f"pictures of {hook.written} image{'s' if hook.written != 1 else ''} in {args.show_dir}")
    return 0


def report(found: Sequence[Evaluation]) -> None:
    """Print IoU per class (and, for one method, accuracy), skipped images and the summary of every method."""
    from rich.console import Console
    from rich.table import Column, Table

    first = found[0]
    images = f"{first.images} image{'s' if first.images != 1 else ''}"
    columns = {f"{one.method}\nIoU" if len(found) > 1 else "IoU": one.scores.iou for one in found}
    if len(found) == 1:
        columns["accuracy"] = first.scores.accuracy
    table = Table("class", *(Column(one, justify="right") for one in columns), title=f"{first.dataset}: {images}")
    for name, *values in zip(first.classes, *columns.values(), strict=True):
        table.add_row(name, *map(_percent, values))
    Console().print(table)
    for image, reason in first.failures.items():
        print(f"skipped {image}: {reason}")
    for one in found:
        summary = "  ".join(f"{name} {_percent(value)}" for name, value in one.scores.summary.items())
        print(f"{one.dataset}, {one.method}: {summary}")
    print(f"{images}, {first.seconds:.1f} s, {first.images_per_second:.1f} images/s")


def _percent(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"

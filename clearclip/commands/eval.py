"""What ``eval.py`` does once its arguments have been read."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from clearclip.commands.eval_parser import eval_parser
from clearclip.evaluation.hooks import PictureHook
from clearclip.evaluation.metric import Evaluation
from clearclip.evaluation.run import evaluate
from clearclip.results.records import append, check_results_path
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder
from clearclip.utils.printable import printable


def eval_command(arguments: Sequence[str] | None = None) -> int:
    """Evaluate as a command line says; see :func:`run_eval`."""
    return run_eval(eval_parser().parse_args(arguments))


def run_eval(args: Namespace) -> int:
    """Evaluate as the arguments say, record the scores and print them."""
    if args.no_cache:
        args.cfg_options["model.cached"] = False
    if args.no_masks or args.out is not None:
        return segment_test_set(args)
    if args.confusion is not None:
        check_folder("--confusion", args.confusion)
    results = check_results_path(args.results)
    if args.words:
        # The study draws figures; an evaluation does without Matplotlib.
        from clearclip.commands.word_table import run_word_table, task_of_config

        return run_word_table([task_of_config(args)], args, results)
    hooks = []
    if args.show_dir is not None:
        hooks.append(PictureHook(Path(args.show_dir), args.show_every, args.show_first))
    names = ("methods", "data_root", "device", "batch_size", "workers", "limit", "launcher", "resume")
    options = {name: getattr(args, name) for name in (*names, "on_error", "imports")}
    evaluations = evaluate(args.config, args.work_dir, overrides=args.cfg_options, hooks=hooks, **options)
    if evaluations[0].is_main:
        # Recorded before anything else: whatever fails from here on costs no result.
        append([evaluation.record for evaluation in evaluations], results)
        report(evaluations)
        # Spreadsheets are needed at the end only.
        from clearclip.results.workbook import update_workbook

        update_workbook(results)
        print(f"{_count_text(len(evaluations), 'row')} added to {printable(results)}")
        for hook in hooks:
            print(f"pictures of {_count_text(hook.written, 'image')} in {printable(args.show_dir)}")
        if args.confusion is not None:
            write_confusion(evaluations, args.confusion)
    return 0


def write_confusion(evaluations: Sequence[Evaluation], folder: str) -> None:
    """Write the confusion matrix and the scores of each class, a file of each kind for each method."""
    from clearclip.results.score_files import write_score_files

    for evaluation in evaluations:
        title = f"{evaluation.dataset}, {evaluation.method}: mIoU {_percent_text(evaluation.scores.summary['mIoU'])}"
        name = re.sub(r"[^\w.-]+", "_", f"{evaluation.dataset}_{evaluation.method}")
        scores = evaluation.scores
        write_score_files(folder, name, evaluation.classes, scores.confusion, scores.columns, title)
    print(f"confusion matrices and scores of classes in {printable(folder)}")


def segment_test_set(args: Namespace) -> int:
    """Write label maps of images without masks."""
    from clearclip.evaluation.label_maps import write_label_maps

    if not args.no_masks or args.out is None:
        raise UserError("--no-masks writes label maps to --out DIR; give both")
    for option, value in (
        ("--resume", args.resume != "no"),
        ("--show-dir", args.show_dir),
        ("--confusion", args.confusion),
    ):
        if value:
            raise UserError(f"{option} needs masks to compare with; leave --no-masks and --out out, or {option}")
    names = ("methods", "data_root", "device", "batch_size", "workers", "limit", "launcher", "on_error")
    options = {name: getattr(args, name) for name in names}
    written = write_label_maps(args.config, args.out, overrides=args.cfg_options, **options)
    if written.is_main:
        for image, reason in written.failures.items():
            print(f"skipped {printable(image)}: {printable(reason)}")
        print(f"{_count_text(written.images, 'label map')} in {printable(args.out)}: {written.format_name}")
    return 0


def report(evaluations: Sequence[Evaluation]) -> None:
    """Print the scores of every class, skipped images and the summary of every method."""
    first = evaluations[0]
    images = _count_text(first.images, "image")
    print_classes(evaluations, f"{first.dataset}: {images}")
    for image, reason in first.failures.items():
        print(f"skipped {printable(image)}: {printable(reason)}")
    for evaluation in evaluations:
        summary = "  ".join(f"{name} {_percent_text(value)}" for name, value in evaluation.scores.summary.items())
        print(f"{printable(evaluation.dataset)}, {printable(evaluation.method)}: {summary}")
    print(f"{images}, {first.seconds:.1f} s, {first.images_per_second:.1f} images/s")
    # Methods of a run mostly have the same reason.
    for line in dict.fromkeys(no_cell_text(evaluation.not_published_because) for evaluation in evaluations):
        if line:
            print(line)


def no_cell_text(reasons: Sequence[str]) -> str:
    """Why a run fills no cell of a published table, in a line; empty where it does."""
    if not reasons:
        return ""
    further = "tells more"
    if len(reasons) > 1:
        further = f"tells {len(reasons) - 1} more"
    return f"in no published cell: {printable(reasons[0])}; eval_all.py --explain {further}"


def print_classes(evaluations: Sequence[Evaluation], title: str) -> None:
    """Print a line for each class: IoU by every method; of one method accuracy, precision and Dice, too."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    first = evaluations[0]
    scores = first.scores
    columns = {"IoU": scores.iou, "accuracy": scores.accuracy, "precision": scores.precision, "Dice": scores.dice}
    if len(evaluations) > 1:
        columns = {f"{printable(evaluation.method)}\nIoU": evaluation.scores.iou for evaluation in evaluations}
    # Text, so that no name is taken for a format of rich's.
    table = Table("class", title=Text(printable(title)))
    for heading in columns:
        table.add_column(Text(heading), justify="right")
    for name, *values in zip(first.classes, *columns.values(), strict=True):
        table.add_row(Text(printable(name)), *(_percent_text(value) for value in values))
    Console().print(table)


def _count_text(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _percent_text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"

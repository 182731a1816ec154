"""The command line of ``eval.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from clearclip.commands.command_line import CommandParser, ImportFile
from clearclip.evaluation.config import Options
from clearclip.evaluation.hooks import PictureHook
from clearclip.evaluation.metric import Evaluation
from clearclip.evaluation.processes import LAUNCHERS
from clearclip.evaluation.run import evaluate
from clearclip.results.records import append, check_results_path
from clearclip.results.workbook import update_workbook


def make_parser() -> CommandParser:
    """The options of ``eval.py``."""
    parser = CommandParser(
        description="Evaluate a benchmark and add a row to results.xlsx. A config is Python and is executed.",
    )
    add = parser.add_argument
    add("--config", required=True, help="such as config/cfg_voc21.py")
    methods = "compare these in one pass: CLIP MaskCLIP 'MaskCLIP + ClearCLIP' ClearCLIP (default: the config's)"
    add("--methods", nargs="+", metavar="METHOD", help=methods)
    add("--workdir", "--work-dir", dest="work_dir", help="default work_dirs/<config>")
    add("--data-root", help="the dataset's folder, or the folder that holds it under its usual name")
    add("--cfg-options", nargs="+", action=Options, default={}, metavar="KEY=VALUE", help="override the config")
    add("--launcher", choices=LAUNCHERS, default="none", help="set by dist_test.sh")
    add("--device", help="cpu, cuda, cuda:N or mps; default: the best that is here")
    add("--batch-size", type=int, help="images per batch")
    add("--workers", type=int, help="processes that read images")
    add("--results", default="results.xlsx", help="workbook (default %(default)s)")
    add("--limit", type=int, metavar="N", help="only the first N images")
    resume = "go on where an earlier run in the work dir stopped; auto: if it had the same settings"
    add("--resume", nargs="?", choices=("yes", "auto", "no"), const="yes", default="no", help=resume)
    add("--on-error", choices=("stop", "skip"), default="stop", help="images that cannot be used")
    add("--import", action=ImportFile)
    add("--no-cache", action="store_true", help="encode the text again and keep nothing on disk")
    add("--show-dir", metavar="DIR", help="write pictures: image, ground truth, prediction, errors")
    add("--show-every", type=int, default=1, metavar="K", help="of every K-th image (default 1)")
    add("--show-first", type=int, metavar="N", help="of at most N images")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says, record the scores and print them."""
    args = make_parser().parse_args(arguments)
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
        update_workbook(results)
        print(f"{len(found)} row{'s' if len(found) > 1 else ''} added to {results}")
        for hook in hooks:
            print(f"pictures of {hook.written} image{'s' if hook.written != 1 else ''} in {args.show_dir}")
    return 0


def report(found: Sequence[Evaluation]) -> None:
    """Print IoU per class (and, for one method, accuracy), skipped images and the summary of every method."""
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

"""The command line of ``eval.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction
from rich.console import Console
from rich.table import Table

from clearclip.errors import CommandParser
from clearclip.evaluation.configs import load_config
from clearclip.evaluation.launch import LAUNCHERS
from clearclip.evaluation.run import Evaluation, evaluate
from clearclip.evaluation.show import PictureWriter
from clearclip.reports.results import check_results_path, record


class Options(DictAction):
    """MMEngine's ``key=value`` options; words without "=" are an error of the command line."""

    def __call__(self, parser, namespace, values, option_string=None):
        for word in values:
            if "=" not in word:
                parser.error(f"{option_string}: {word!r} is not key=value, such as model.model_type=SCLIP")
        super().__call__(parser, namespace, values, option_string)


def make_parser() -> argparse.ArgumentParser:
    """The options of ``eval.py``."""
    parser = CommandParser(
        prog="eval.py",
        description="Evaluate a benchmark and add a row to results.xlsx. A config is Python and is executed.",
    )
    parser.add_argument("--config", required=True, help="such as config/cfg_voc21.py")
    parser.add_argument("--workdir", "--work-dir", dest="work_dir", help="default work_dirs/<config>")
    parser.add_argument("--data-root", help="the dataset's folder, or the folder that holds it under its usual name")
    parser.add_argument(
        "--cfg-options", nargs="+", action=Options, default={}, metavar="KEY=VALUE", help="override parts of the config"
    )
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="set by dist_test.sh")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps; default: the best that is here")
    parser.add_argument("--batch-size", type=int, help="images per batch")
    parser.add_argument("--workers", type=int, help="processes that read images")
    parser.add_argument("--results", default="results.xlsx", help="workbook (default %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument(
        "--resume",
        nargs="?",
        choices=("yes", "auto", "no"),
        const="yes",
        default="no",
        help="go on where an earlier run in the work dir stopped; auto: if it had the same settings",
    )
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop", help="images that cannot be used")
    parser.add_argument("--no-cache", action="store_true", help="encode the text anew and keep nothing on disk")
    parser.add_argument("--show-dir", metavar="DIR", help="write pictures: image, ground truth, prediction, errors")
    parser.add_argument("--show-every", type=int, default=1, metavar="K", help="of every K-th image (default 1)")
    parser.add_argument("--show-first", type=int, metavar="N", help="of at most N images")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says; print the scores and record them."""
    args = make_parser().parse_args(arguments)
    results = check_results_path(args.results)
    if args.no_cache:
        args.cfg_options["model.cached"] = False
    cfg = load_config(args.config, args.cfg_options, args.data_root)
    writer = None
    if args.show_dir is not None:
        writer = PictureWriter(Path(args.show_dir), args.show_every, args.show_first)
    result = evaluate(
        cfg,
        args.work_dir,
        device=args.device,
        batch_size=args.batch_size,
        workers=args.workers,
        limit=args.limit,
        launcher=args.launcher,
        resume=args.resume,
        on_error=args.on_error,
        on_result=writer,
    )
    if result.is_main:
        report(result)
        record(result, results)
        print(f"row added to {results}")
        if writer is not None:
            print(f"{writer.written} pictures in {args.show_dir}")
    return 0


def report(result: Evaluation) -> None:
    """Print scores per class, skipped images and the summary."""
    console = Console()
    table = Table(title=f"{result.dataset}: {result.images} images")
    table.add_column("class")
    table.add_column("IoU", justify="right")
    table.add_column("accuracy", justify="right")
    for name, iou, accuracy in zip(result.classes, result.scores.iou, result.scores.accuracy, strict=True):
        table.add_row(name, _percent(iou), _percent(accuracy))
    console.print(table)
    for image, reason in result.failures.items():
        print(f"skipped {image}: {reason}")
    summary = "  ".join(f"{name} {_percent(value)}" for name, value in result.scores.summary.items())
    rate = result.images / result.seconds
    print(f"{result.dataset}: {summary}  ({result.images} images, {result.seconds:.1f} s, {rate:.1f} images/s)")


def _percent(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"

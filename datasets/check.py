"""Check whether datasets are complete, and say what to do where they are not.

python datasets/check.py                                   the eight benchmarks
python datasets/check.py config/cfg_voc21.py --full        one, every file

Exit code: 0 where all are complete, 1 where something is missing or wrong.
"""

from __future__ import annotations

import os
import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clearclip.data.check import Report, check_dataset
from clearclip.errors import CommandParser, run_command
from clearclip.mmseg.config import load_config

BENCHMARKS = ("voc21", "context60", "coco_object", "voc20", "context59", "coco_stuff164k", "city_scapes", "ade20k")
CONFIGS = [Path(__file__).resolve().parents[1] / "config" / f"cfg_{name}.py" for name in BENCHMARKS]


def main() -> int:
    """Check and print a table."""
    parser = CommandParser(prog="check.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="*", type=Path, default=CONFIGS, help="default: the eight benchmarks")
    parser.add_argument("--data-root", help="a dataset's folder, or the folder that holds it under its usual name")
    parser.add_argument("--full", action="store_true", help="open every image and mask")
    parser.add_argument("--sample", type=int, default=32, help="else this many of each (default: %(default)s)")
    parser.add_argument("--nproc", type=int, default=os.cpu_count(), help="files at a time (default: %(default)s)")
    arguments = parser.parse_args()
    for name in ("sample", "nproc"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)}: give 1 or more")

    configs = [load_config(path, data_root=arguments.data_root) for path in arguments.config]
    reports = [check_dataset(cfg, arguments.full, arguments.sample, arguments.nproc) for cfg in configs]
    console = Console()
    console.print(make_table(reports))
    for report in reports:
        for line in (*report.problems, *report.remarks):
            console.print(f"[red]{escape(report.name)}[/]: {escape(line)}", soft_wrap=True)
    complete = sum(report.complete for report in reports)
    console.print(f"{complete} of {len(reports)} complete")
    return int(complete < len(reports))


def make_table(reports: list[Report]) -> Table:
    """A row per dataset, its root below its name. Sizes and ids are of the pairs that were opened."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("dataset\nroot", overflow="fold", min_width=14)
    for column in ("images", "masks", "sizes\nmatch", "ids\nvalid", "complete"):
        table.add_column(column, justify="right")
    for report in reports:
        expected = report.listed if report.expected is None else report.expected
        table.add_row(
            f"{report.name}\n[dim]{escape(str(report.root))}[/]",
            _of(report.images, expected),
            _of(report.masks, expected),
            _of(report.sizes, report.opened),
            _of(report.ids, report.opened),
            "[green]yes[/]" if report.complete else "[red]no[/]",
        )
    return table


def _of(found: int, total: int) -> str:
    if not total:
        return "–"
    text = f"{found:,}/{total:,}"
    return text if found == total else f"[red]{text}[/]"


if __name__ == "__main__":
    sys.exit(run_command(main))

"""The command line of ``eval_all.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from clearclip.commands.console import CommandParser
from clearclip.commands.table_run import plan, run_all
from clearclip.evaluation.config import Options
from clearclip.results.cells import columns, fill_row, format_cell, to_markdown
from clearclip.results.protocols import PROTOCOLS
from clearclip.results.records import check_results_path, read_rows, rebuild, rows_path
from clearclip.results.rows import MINIATURE_VIT, TABLES, Row, select_datasets, select_rows
from clearclip.utils.devices import choose_device
from clearclip.utils.errors import UserError


def make_parser() -> CommandParser:
    """The options of ``eval_all.py``."""
    parser = CommandParser(
        description="Evaluate a whole table of the paper. What has a result already is skipped, so it can be killed "
        "and started again at any time.",
    )
    parser.add_argument(
        "--table",
        default=None,
        choices=TABLES,
        help="benchmarks: ClearCLIP on all eight (default); 2: the paper's table; background: the three with "
        "background; ablation: attention × residual × FFN; family: CLIP to SC-CLIP by one protocol",
    )
    parser.add_argument(
        "--protocol",
        default=PROTOCOLS[0],
        choices=PROTOCOLS,
        help="of the family's table: ClearCLIP's (default), NACLIP's (other sizes, windows, scale, thresholds and "
        "words, and PAMR), or ResCLIP's (the same without PAMR)",
    )
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="such as MaskCLIP, or 'MaskCLIP + ClearCLIP'")
    parser.add_argument("--datasets", nargs="+", metavar="DATASET", help="such as voc20 ade20k")
    parser.add_argument("--vit", nargs="+", metavar="VIT", help="ViT-B/16, ViT-L/14")
    parser.add_argument("--miniature", action="store_true", help="the bundled model and benchmark, offline")
    parser.add_argument("--gpus", type=int, metavar="N", help="N processes through dist_test.sh")
    parser.add_argument("--results", default="results.xlsx", help="workbook (default %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images of each dataset")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps")
    parser.add_argument("--batch-size", type=int, help="images per batch")
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop", help="images that cannot be used")
    parser.add_argument(
        "--cfg-options", nargs="+", action=Options, default={}, metavar="KEY=VALUE", help="for all runs"
    )
    parser.add_argument("--force", action="store_true", help="repeat runs that have a result")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown and run nothing")
    parser.add_argument("--rebuild", action="store_true", help="write the workbook again from its rows and run nothing")
    return parser


def main(root: Path, arguments: Sequence[str] | None = None) -> int:
    """Do as the command line says.

    Args:
        root: the folder that has ``config/``, ``eval.py`` and ``dist_test.sh``.

    Returns:
        0, or 1 where a run failed.
    """
    args = make_parser().parse_args(arguments)
    results = check_results_path(args.results)
    for name, value in (("--gpus", args.gpus), ("--limit", args.limit), ("--batch-size", args.batch_size)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    if args.device is not None:
        choose_device(args.device)
    if args.rebuild:
        count = len(read_rows(results))
        if not count:
            raise UserError(f"{rows_path(results)} has no rows to make a workbook from; name another with --results")
        if not rebuild(results, root):
            return 1
        print(f"{results}: {count} runs")
        return 0
    table, protocol = args.table or ("2" if args.miniature else "benchmarks"), args.protocol
    if protocol != PROTOCOLS[0] and table != "family":
        raise UserError(f"--protocol {protocol} is for the family's table; add --table family")
    rows = select_rows(table, args.miniature, args.rows, args.vit)
    datasets = select_datasets(table, args.miniature, args.datasets)
    if args.markdown:
        print(to_markdown(table, rows, datasets, read_rows(results), root, protocol))
        return 0
    groups = plan(rows, datasets, root, args.cfg_options, args.limit, protocol)
    if args.dry_run:
        known = [] if args.force else read_rows(results)
        for number, group in enumerate(groups, start=1):
            print(f"{number:3}. {group.dataset}, {group.rows[0].vit}, {group.images} images")
            for row in group.rows:
                print(f"       {row.system}{': has a result' if group.has_result(row, known) else ''}")
        return 0
    outcome = run_all(
        groups,
        root,
        results,
        gpus=args.gpus,
        force=args.force,
        device=args.device,
        batch_size=args.batch_size,
        on_error=args.on_error,
    )
    if args.limit is not None:
        print(f"runs of {args.limit} images are in the list of runs; the table shows those of all images only")
    print_table(table, rows, datasets, results, root, protocol)
    print_summary(outcome, results)
    return 1 if outcome["failed"] else 0


def print_table(
    table: str, rows: list[Row], datasets: tuple[str, ...], results: Path, root: Path, protocol: str
) -> None:
    """Print measured mIoU with the published figure in brackets."""
    runs = read_rows(results)
    shown = Table(title="mIoU, measured (published)" + (f", protocol {protocol}" if table == "family" else ""))
    if table == "family" and MINIATURE_VIT in {row.vit for row in rows}:
        shown.caption = "RCS and SC-CLIP read other blocks of the miniature than published: half of ViT-B/16's"
    for heading in ("ViT", "system", "ClearCLIP"):
        shown.add_column(heading)
    for heading in columns(table, datasets):
        shown.add_column(heading, justify="right")
    for row in rows:
        cells = fill_row(table, row, datasets, runs, root, protocol)
        shown.add_row(row.vit, row.name, row.clearclip, *map(format_cell, cells))
    Console().print(shown)


def print_summary(outcome: dict, results: Path) -> None:
    """Print what ran, what was skipped and what failed, and why."""
    print("; ".join(f"{len(runs)} {kind}" for kind, runs in outcome.items()) + f"; results in {results}")
    for label, why in outcome["failed"]:
        print(f"failed: {label}: {why}")

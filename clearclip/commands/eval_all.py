"""What ``eval_all.py`` does once its arguments have been read."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table

from clearclip.commands.eval_all_parser import make_parser
from clearclip.commands.table_run import has_result, plan, run_all
from clearclip.methods import METHODS, build_method
from clearclip.miniature import METHOD_NOTE
from clearclip.results.published import Row, protocol_names, select_datasets, select_rows
from clearclip.results.records import check_results_path, read_records, records_path
from clearclip.results.tables import fill_row, headings, to_markdown
from clearclip.results.workbook import update_workbook
from clearclip.utils.devices import choose_device
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import source_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Do as a command line says; see :func:`run`."""
    return run(make_parser().parse_args(arguments))


def run(args: Namespace) -> int:
    """Do as the arguments say.

    Returns:
        0, or 1 where a run failed.
    """
    results = check_results_path(args.results)
    for name, value in (("--gpus", args.gpus), ("--limit", args.limit), ("--batch-size", args.batch_size)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    if args.device is not None:
        choose_device(args.device)
    if args.rebuild:
        count = len(read_records(results)[0])
        if not count:
            raise UserError(f"{records_path(results)} has no records to make a workbook from; name another (--results)")
        if not update_workbook(results, force=True):
            return 1
        print(f"{results}: {count} run{'s' if count != 1 else ''}")
        return 0
    table, protocol = args.table or ("2" if args.miniature else "benchmarks"), args.protocol
    if protocol != protocol_names()[0] and table != "family":
        raise UserError(f"--protocol {protocol} is for the family's table; add --table family")
    rows = choose_rows(table, args.miniature, args.rows, args.vit)
    datasets = select_datasets(table, args.miniature, args.datasets)
    if args.markdown:
        print(to_markdown(table, rows, datasets, read_records(results)[0], protocol))
        return 0
    groups = plan(rows, datasets, args.cfg_options, args.limit, protocol)
    if args.dry_run:
        known = [] if args.force else read_records(results)[0]
        for number, group in enumerate(groups, start=1):
            print(f"{number:3}. {group.dataset}, {group.rows[0].vit}, {group.images} images")
            for row in group.rows:
                print(f"       {row.system}{': has a result' if has_result(group, row, known, args.device) else ''}")
        return 0
    names = ("gpus", "force", "device", "batch_size", "on_error", "imports")
    done, skipped, failed = run_all(groups, results, **{name: getattr(args, name) for name in names})
    if args.limit is not None:
        print(f"runs of {args.limit} images are in the list of runs; the table shows those of all images only")
    records = read_records(results)[0]
    print_table(table, rows, datasets, records, protocol)
    written = not records or update_workbook(results)
    count = sum(map(len, failed.values()))
    print(f"{done} done; {skipped} skipped; {count} failed; results in {results}")
    for why, labels in failed.items():
        print(f"failed: {labels[0]}{f' and {len(labels) - 1} more' if len(labels) > 1 else ''}: {why}")
    return 0 if written and not failed else 1


def choose_rows(table: str, miniature: bool, names: list[str] | None, vits: list[str] | None) -> list[Row]:
    """The rows that are named, those of methods that ``--import`` registered among them, with CLIP's weights.

    Raises:
        UserError: an unknown name, or a table without such a row.
    """
    own = [name for name in names or () if name in METHODS and source_of(METHODS[name])]
    others = None if names is None else [name for name in names if name not in own]
    rows = select_rows(table, miniature, others, vits)
    if own:
        every = select_rows(table, miniature, None, vits)
        for row in {row.vit: row for row in every if row.clip_type in ("CLIP", "Miniature")}.values():
            rows += [replace(row, name=one, clearclip="", method=one, label=build_method(one).label) for one in own]
    if not rows:
        raise UserError(f"the table {table} has no such row; choose other --rows or --vit, or another --table")
    return rows


def print_table(table: str, rows: list[Row], datasets: Sequence[str], records: list[dict], protocol: str) -> None:
    """Print measured mIoU with the published figure below it; eight datasets fit into 80 columns."""
    print("\nmIoU, %, measured and (published)" + (f", protocol {protocol}" if table == "family" else ""))
    vits = {row.vit for row in rows}
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    shown.add_column(rows[0].vit if len(vits) == 1 else "")
    for heading in headings(table, datasets):
        shown.add_column(heading.replace("Context", "Cont.").replace("Cityscapes", "City"), justify="right")
    for row in rows:
        name = row.system if len(vits) == 1 else f"{row.system} {row.vit.removeprefix('ViT-')}"
        cells = fill_row(table, row, datasets, records, protocol)
        shown.add_row(name, *(str(cell).replace(" ", "\n") for cell in cells))
    Console().print(shown)
    if any(row.clip_type == "Miniature" for row in rows) and table == "family":
        print(METHOD_NOTE)

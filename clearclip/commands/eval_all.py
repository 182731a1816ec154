"""What ``eval_all.py`` does once its arguments have been read."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as ConsoleTable
from rich.text import Text

from clearclip.commands.eval_all_parser import eval_all_parser
from clearclip.commands.row_choice import choose_rows
from clearclip.commands.table_check import TableCheck
from clearclip.commands.table_plan import OWN_RESULT, Group, has_result, plan
from clearclip.commands.table_repetition import repetition_of
from clearclip.commands.table_run import Outcome, run_all
from clearclip.commands.word_flags import WORDS_TABLE
from clearclip.evaluation.launchers import launcher_of_environment
from clearclip.results.cells import FilledRow, fill_table, headings, marked_name, notes_of, replaced_remarks
from clearclip.results.explanation import explain, explanation_lines
from clearclip.results.own_rows import own_rows
from clearclip.results.protocols import protocol_names
from clearclip.results.record import Record
from clearclip.results.records import check_results_path, find_record, read_records, records_path
from clearclip.results.table_definitions import Table, find_table, tables
from clearclip.results.table_text import TABLE_FORMATS
from clearclip.results.workbook import update_workbook
from clearclip.results.workbook_sheets import sheet_name
from clearclip.utils.continuation import continued_by
from clearclip.utils.devices import choose_device
from clearclip.utils.errors import UserError
from clearclip.utils.printable import printable

#: The table whose rows a study of words has.
WORDS_ROWS = "family"


def eval_all_command(arguments: Sequence[str] | None = None) -> int:
    """Do as a command line says; see :func:`run_eval_all`."""
    return run_eval_all(eval_all_parser().parse_args(arguments))


def run_eval_all(args: Namespace) -> int:
    """Do as the arguments say.

    Returns:
        0, or 1 where a run failed or the workbook could not be written.
    """
    results = check_results_path(args.results)
    _check_options(args)
    if launcher_of_environment() != "none":
        raise UserError("eval_all.py starts its processes itself: run it once, with --gpus N")
    if args.rebuild:
        return rebuild(results)
    if args.explain is not None:
        return print_explanation(results, args.explain)
    if args.table == WORDS_TABLE:
        return run_words(results, args)
    table = choose_table(args)
    if args.format is not None:
        records = read_records(results)[0]
        print(TABLE_FORMATS[args.format](_with_own_rows(table, args, records), records, args.protocol))
        return 0
    groups = plan(table.rows, table.datasets, args.cfg_options, args.limit, args.protocol, args.imports)
    if args.dry_run:
        print_plan(groups, repetition_of(args).records_that_count(results), args)
        return 0
    return evaluate_table(table, groups, results, args)


def run_words(results: Path, args: Namespace) -> int:
    """Study words and thresholds with the rows of the family's table, a dataset at a time."""
    # The study draws figures; tables do without Matplotlib.
    from clearclip.commands.word_table import run_word_table, task_of_group

    args.table = WORDS_ROWS
    table = choose_table(args)
    groups = plan(table.rows, table.datasets, args.cfg_options, args.limit, args.protocol)
    if args.dry_run:
        print_plan(groups, [], args)
        return 0
    return run_word_table([task_of_group(group) for group in groups], args, results)


def _check_options(args: Namespace) -> None:
    """Check what is wrong whatever the table is."""
    for name, value in (("--gpus", args.gpus), ("--limit", args.limit), ("--batch-size", args.batch_size)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    if args.device is not None:
        choose_device(args.device)


def rebuild(results: Path) -> int:
    """Write the workbook again from its records."""
    count = len(read_records(results)[0])
    if not count:
        raise UserError(f"{records_path(results)} has no records to make a workbook from; name another (--results)")
    if not update_workbook(results, force=True):
        return 1
    noun = "run" if count == 1 else "runs"
    print(f"{printable(results)}: {count} {noun}")
    return 0


def print_explanation(results: Path, name: str) -> int:
    """Say why a run is in a table or in none, and which known trap its number looks like."""
    record = find_record(results, name)
    for line in explanation_lines(explain(record)):
        print(printable(line))
    return 0


def choose_table(args: Namespace) -> Table:
    """The table that is meant, with the rows and columns that are named."""
    table = find_table(args.table, args.miniature)
    _check_protocol(table, args.protocol)
    return table.with_rows(choose_rows(table, args.rows, args.vit)).with_datasets(args.datasets)


def _check_protocol(table: Table, protocol: str) -> None:
    """Check that a table may be evaluated by a protocol: the paper's tables are by the paper's."""
    if protocol == protocol_names()[0] or table.any_protocol:
        return
    names = [candidate.name for candidate in tables().values() if candidate.any_protocol]
    raise UserError(f"--protocol {protocol} is not for the table {table.name}; add --table {' or '.join(names)}")


def _with_own_rows(table: Table, args: Namespace, records: Sequence[Record]) -> Table:
    """A table with the user's own methods that have a result; where rows are named, those alone."""
    if args.rows is not None:
        return table
    return table.with_rows([*table.rows, *own_rows(table, records, args.protocol)])


def print_plan(groups: Sequence[Group], records: Sequence[Record], args: Namespace) -> None:
    """Print what would be computed, what has a result, and what is missing for it."""
    check = TableCheck(args.gpus, args.on_error, may_fetch=False)
    check.check_start()
    for number, group in enumerate(groups, start=1):
        line = f"{number:3}. {group.dataset}, {group.rows[0].vit}, {group.images} images"
        fault = check.missing(group.cfg)
        if fault:
            line += f"; cannot run: {printable(fault)}"
        print(line)
        for row in group.rows:
            line = f"       {printable(row.system)}"
            if has_result(group, row, records, args.device):
                line += f": {OWN_RESULT}" if row.is_own else ": has a result"
            print(line)


def evaluate_table(table: Table, groups: Sequence[Group], results: Path, args: Namespace) -> int:
    """Compute what has no result yet, and print and write the table."""
    repetition = repetition_of(args)
    options = {name: getattr(args, name) for name in ("device", "batch_size", "on_error")}
    check = TableCheck(args.gpus, args.on_error)
    with continued_by(repetition.command_to_continue):
        try:
            outcome = run_all(groups, results, check, gpus=args.gpus, repetition=repetition, **options)
        except KeyboardInterrupt as error:
            # An evaluation has said how to go on, and so have the processes that share one.
            if str(error) or args.gpus:
                raise
            command = repetition.command_to_continue
            raise KeyboardInterrupt(f"what is finished is kept: {command} goes on") from error
    if args.limit is not None:
        print(f"runs of {args.limit} images are in the list of runs; the table shows those of all images only")
    records = read_records(results)[0]
    print_table(_with_own_rows(table, args, records), records, args.protocol)
    is_written = not records or update_workbook(results, opens_on=sheet_name(table, args.protocol))
    print_outcome(outcome, results)
    if outcome.failed and repetition.since is not None:
        print(f"{repetition.command_to_continue} repeats what failed, and nothing else")
    return 0 if is_written and not outcome.failed else 1


def print_outcome(outcome: Outcome, results: Path) -> None:
    """Print how many rows were computed, where they are, and what failed."""
    count = sum(map(len, outcome.failed.values()))
    line = f"{outcome.computed} done; {outcome.skipped} skipped; {count} failed"
    # Where all groups failed there is no workbook to be looked for.
    if results.exists():
        line += f"; results in {printable(results)}"
    print(line)
    for reason, labels in outcome.failed.items():
        names = printable(labels[0])
        if len(labels) > 1:
            names += f" and {len(labels) - 1} more"
        print(f"failed: {names}: {printable(reason)}")


def _console_table(table: Table, rows: Sequence[FilledRow]) -> ConsoleTable:
    """A table for the terminal, each cell with its published figure in a second line."""
    sizes = {row.vit for row in table.rows}
    # The size stands once in the corner, or behind each name.
    corner = ""
    if len(sizes) == 1:
        corner = table.rows[0].vit
    grid = ConsoleTable(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    grid.add_column(corner)
    for heading in headings(table):
        grid.add_column(heading.replace("Context", "Cont.").replace("Cityscapes", "City"), justify="right")
    for row, cells in rows:
        name = row.system
        if not corner:
            name += f" {row.vit.removeprefix('ViT-')}"
        texts = [marked_name(row, name), *(str(cell).replace(" ", "\n") for cell in cells)]
        # Text, so that no name is taken for a format of rich's.
        grid.add_row(*map(Text, map(_printable_lines, texts)))
    return grid


def _printable_lines(text: str) -> str:
    """A text of several lines without what a terminal would take for a command."""
    return "\n".join(map(printable, text.split("\n")))


def print_table(table: Table, records: Sequence[Record], protocol: str) -> None:
    """Print measured mIoU with the published figure below it; eight datasets fit into 80 columns."""
    title = "mIoU, %, measured and (published)"
    if table.any_protocol:
        title += f", protocol {protocol}"
    print(f"\n{title}")
    rows = fill_table(table, records, protocol)
    Console().print(_console_table(table, rows))
    for note in (*notes_of(rows), *replaced_remarks(table, rows)):
        print(printable(note))
    if table.remark:
        print(table.remark)

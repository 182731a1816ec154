"""The options of ``eval_all.py``. Nothing heavy is imported here: ``--help`` and misspelled options answer at once."""

from __future__ import annotations

from clearclip.commands.command_line import CommandParser, ImportFile
from clearclip.commands.key_values import KeyValues
from clearclip.commands.word_flags import WORDS_HELP, WORDS_TABLE, add_word_flags
from clearclip.results.protocols import protocol_names
from clearclip.results.table_definitions import tables


def eval_all_parser() -> CommandParser:
    """The options of ``eval_all.py``."""
    parser = CommandParser(
        description="Evaluate a whole table of the paper. What has a result already is skipped, so it can be killed "
        "and started again at any time.",
    )
    add = parser.add_argument
    first = next(iter(tables()))
    notes = [f"{table.name}: {table.note}{' (default)' * (table.name == first)}" for table in tables().values()]
    notes.append(f"{WORDS_TABLE}: {WORDS_HELP}")
    add("--table", choices=[*tables(), WORDS_TABLE], help="; ".join(notes))
    by = "of the family's table: by whose sizes, windows, thresholds, words and options (default: %(default)s)"
    add("--protocol", default=protocol_names()[0], choices=protocol_names(), help=by)
    rows = "such as MaskCLIP, 'MaskCLIP + ClearCLIP', a method that --import registers, or a JSON object with options"
    add("--rows", nargs="+", metavar="ROW", help=rows)
    add("--datasets", nargs="+", metavar="DATASET", help="such as voc20 ade20k")
    add("--vit", nargs="+", metavar="VIT", help="ViT-B/16, ViT-L/14")
    add("--miniature", action="store_true", help="the bundled model and benchmark, offline")
    add("--gpus", type=int, metavar="N", help="N processes through dist_test.sh")
    add("--results", default="results.xlsx", help="workbook (default %(default)s)")
    add("--limit", type=int, metavar="N", help="only the first N images of each dataset")
    add("--device", help="cpu, cuda, cuda:N or mps")
    add("--batch-size", type=int, help="images per batch")
    add("--on-error", choices=("stop", "skip"), default="stop", help="images that cannot be used")
    add("--cfg-options", nargs="+", action=KeyValues, default={}, metavar="KEY=VALUE", help="for all runs")
    add("--import", action=ImportFile)
    force = "repeat runs that have a result; TIME: those that have none since then, to go on where it was interrupted"
    add("--force", nargs="?", const="", metavar="TIME", help=force)
    add("--dry-run", action="store_true", help="print the plan and run nothing")
    for name, language in (("markdown", "Markdown"), ("latex", "LaTeX (booktabs)"), ("csv", "CSV")):
        text = f"print the table as {language} and run nothing"
        add(f"--{name}", dest="format", action="store_const", const=name, help=text)
    explain = (
        "why a run is in a table or in none, by its line in the list of runs or its fingerprint; default: the last"
    )
    add("--explain", nargs="?", const="last", metavar="RUN", help=explain)
    add("--rebuild", action="store_true", help="write the workbook again from its rows and run nothing")
    add_word_flags(parser)
    return parser

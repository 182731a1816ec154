"""The options of ``eval.py``. Nothing heavy is imported here: ``--help`` and misspelled options answer at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from clearclip.commands.command_line import CommandParser, ImportFile
from clearclip.commands.key_values import KeyValues
from clearclip.commands.known_names import LAUNCHER_NAMES
from clearclip.commands.word_flags import WORDS_HELP, add_word_flags


class LocalRank(argparse.Action):
    """``--local-rank N``, by which torch.distributed.launch tells a process what torchrun tells in LOCAL_RANK."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any):
        super().__init__(option_strings, dest, type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        os.environ.setdefault("LOCAL_RANK", str(values))


def eval_parser() -> CommandParser:
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
    add("--cfg-options", nargs="+", action=KeyValues, default={}, metavar="KEY=VALUE", help="override the config")
    launcher = "who started several processes of this kind (default: seen from the environment)"
    add("--launcher", choices=LAUNCHER_NAMES, help=launcher)
    add("--local-rank", "--local_rank", action=LocalRank)
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
    add("--confusion", metavar="DIR", help="write the confusion matrix (CSV and picture) and each class's scores")
    add("--no-masks", action="store_true", help="write label maps of a test set, as its server takes them, to --out")
    add("--out", metavar="DIR", help="folder for the label maps of --no-masks")
    add("--words", action="store_true", help=f"study words and thresholds instead: {WORDS_HELP}")
    add_word_flags(parser)
    return parser

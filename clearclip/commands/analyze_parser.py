"""The options of ``analyze.py``. Nothing heavy is imported here: ``--help`` and misspelled options answer at once."""

from __future__ import annotations

from pathlib import Path

from clearclip.commands.command_line import CommandParser, ImportFile, JoinWords
from clearclip.commands.key_values import KeyValues
from clearclip.commands.known_names import METHOD_NAMES
from clearclip.commands.model_flags import WORDS, add_model_options
from clearclip.utils.files import user_path

#: What ``analyze.py`` can do, in this order.
ANALYSIS_STEPS = ("statistics", "scores", "maps")


def analyze_parser() -> CommandParser:
    """The options of ``analyze.py``."""
    parser = CommandParser(
        description="Draw the paper's analysis: statistics of X_res, X_attn and X_sum, and what they do to mIoU. "
        "Without arguments: the bundled miniature, offline.",
        epilog="example: python analyze.py photos/ --clip-type CLIP --vit-type ViT-L/14",
    )
    add = parser.add_argument
    add("images", nargs="*", help="image files or folders, in place of a benchmark; without masks no mIoU")
    add("--config", help="benchmark, such as config/cfg_voc20.py (default: the miniature)")
    add("--data-root", help="the dataset's folder, or the folder that holds it under its usual name")
    add("--cfg-options", nargs="+", action=KeyValues, default={}, metavar="KEY=VALUE", help="override the config")
    add("--methods", nargs="+", default=[], metavar="NAME", help=f"more methods to compare: {', '.join(METHOD_NAMES)}")
    add("--import", action=ImportFile)
    add("--classes", action=JoinWords, metavar="WORDS", help=f"of images: {WORDS}")
    add("--only", nargs="+", choices=ANALYSIS_STEPS, default=ANALYSIS_STEPS, help="steps to do (default: all)")
    add("--limit", type=int, metavar="N", help="only the first N images")
    add("--out", type=user_path, default=Path("outputs/analysis"), help="folder (default %(default)s)")
    add_model_options(parser.add_argument_group("model (default: the config's; of images: CLIP ViT-B/16)"))
    return parser

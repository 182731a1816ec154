"""The options of ``datasets/cvt_coco_object.py``. Nothing heavy is imported here: misspelled options answer at once."""

from __future__ import annotations

import os
from pathlib import Path

from clearclip.commands.command_line import CommandParser


def convert_coco_object_parser() -> CommandParser:
    """The options."""
    parser = CommandParser(description="Make COCO-Object's masks from COCO-Stuff 164k's raw masks.")
    add = parser.add_argument
    add("coco_stuff", type=Path, metavar="PATH_TO_COCO_STUFF164K", help="has images/*2017 and annotations/*2017")
    add("-o", "--out", type=Path, required=True, metavar="PATH_TO_COCO164K", help="folder to write; may be the same")
    add("--split", choices=("val", "train", "both"), default="val", help="default: val, all the benchmark needs")
    add("--copy", action="store_true", help="copy the images instead of linking them")
    add("--nproc", type=int, default=os.cpu_count(), help="files at a time (default: %(default)s)")
    return parser

"""The options of ``datasets/check.py``. Nothing heavy is imported here: misspelled options answer at once."""

from __future__ import annotations

import os
from argparse import RawDescriptionHelpFormatter

from clearclip.commands.command_line import CommandParser

#: Names of several configs at once.
DATASET_GROUPS = {
    "benchmarks": "voc21 context60 coco_object voc20 context59 coco_stuff164k city_scapes ade20k",
    "large": "pc459 ade847",
    "remote": "openearthmap loveda isaid potsdam vaihingen uavid udd5 vdd",
}
_DESCRIPTION = """Check whether datasets are complete, and say what to do where they are not.

python datasets/check.py                                   the eight benchmarks
python datasets/check.py config/cfg_voc21.py --full        one, every file
python datasets/check.py large remote                      PC-459 and ADE-847, and the remote-sensing sets

Exit code: 0 where all are complete, 1 where something is missing or wrong.
"""


def check_data_parser() -> CommandParser:
    """The options."""
    parser = CommandParser(description=_DESCRIPTION, formatter_class=RawDescriptionHelpFormatter)
    configs = f"a config file, or {', '.join(DATASET_GROUPS)} (default: benchmarks)"
    parser.add_argument("config", nargs="*", default=["benchmarks"], help=configs)
    parser.add_argument("--data-root", help="a dataset's folder, or the folder that holds it under its usual name")
    parser.add_argument("--full", action="store_true", help="decode every image and mask, and list all that are wrong")
    parser.add_argument("--sample", type=int, default=32, help="else open this many of each (default: %(default)s)")
    parser.add_argument("--nproc", type=int, default=os.cpu_count(), help="files at a time (default: %(default)s)")
    return parser

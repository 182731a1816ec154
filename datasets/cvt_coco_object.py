"""Make COCO-Object (background and 80 things) from COCO-Stuff 164k's raw masks.

python datasets/cvt_coco_object.py data/coco_stuff164k -o data/coco_object

It can be stopped at any moment; the same command continues with what is missing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from clearclip.data.coco_object import convert
from clearclip.errors import CommandParser, run_command
from clearclip.files import check_folder


def main() -> None:
    """Convert, and print what came out."""
    parser = CommandParser(prog="cvt_coco_object.py", description="COCO-Object from COCO-Stuff 164k's raw masks.")
    add = parser.add_argument
    add("coco_stuff", type=Path, metavar="PATH_TO_COCO_STUFF164K", help="has images/*2017 and annotations/*2017")
    add("-o", "--out", type=Path, required=True, metavar="PATH_TO_COCO164K", help="folder to write; may be the same")
    add("--split", choices=("val", "train", "both"), default="val", help="default: val, all the benchmark needs")
    add("--copy", action="store_true", help="copy the images instead of linking them")
    add("--nproc", type=int, default=os.cpu_count(), help="files at a time (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.nproc < 1:
        parser.error(f"--nproc {arguments.nproc}: give 1 or more")
    check_folder("--out", arguments.out)
    for split in ("val", "train") if arguments.split == "both" else (arguments.split,):
        masks, written = convert(arguments.coco_stuff, arguments.out, split, arguments.nproc, arguments.copy)
        print(f"{split}: {masks:,} masks in {arguments.out}, {written:,} of them written now")


if __name__ == "__main__":
    sys.exit(run_command(main))

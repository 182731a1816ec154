"""Make COCO-Object (background and 80 things) from COCO-Stuff 164k's raw masks.

python datasets/cvt_coco_object.py data/coco_stuff164k -o data/coco_object

It can be stopped at any moment; the same command continues with what is missing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from clearclip.data.coco_object import LAST_ID, THING_IDS, convert
from clearclip.errors import CommandParser, run_command


def main() -> int:
    """Convert and print what came out. Returns 0, or 1 where the result is not fit for evaluation."""
    parser = CommandParser(prog="cvt_coco_object.py", description="COCO-Object from COCO-Stuff 164k's raw masks.")
    parser.add_argument(
        "coco_stuff", type=Path, metavar="PATH_TO_COCO_STUFF164K", help="has images/*2017 and annotations/*2017"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="PATH_TO_COCO164K", help="folder to write; may be the same"
    )
    parser.add_argument(
        "--split", choices=("val", "train", "both"), default="val", help="default: val, all the benchmark needs"
    )
    parser.add_argument("--copy", action="store_true", help="copy the images instead of linking them")
    parser.add_argument("--nproc", type=int, default=os.cpu_count(), help="files at a time (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.nproc < 1:
        parser.error(f"--nproc {arguments.nproc}: give 1 or more")

    splits = ("val", "train") if arguments.split == "both" else (arguments.split,)
    reports = convert(arguments.coco_stuff, arguments.out, splits, arguments.nproc, arguments.copy)
    for report in reports:
        things = report.raw_ids.intersection(THING_IDS)
        stuff = report.raw_ids.intersection(range(91, LAST_ID + 1))
        print(f"{report.split}: {report.masks:,} masks in {arguments.out} ({report.written:,} written, rest unchanged)")
        print(f"  ids seen: {len(things)} of {len(THING_IDS)} things (labels 1..80); {len(stuff)} stuff ids (label 0)")
        for fault in report.faults:
            print(f"  does not fit: {fault}")
    return int(any(report.faults for report in reports))


if __name__ == "__main__":
    sys.exit(run_command(main))

"""Check whether datasets are complete, and say what to do where they are not.

python datasets/check.py                                   the eight benchmarks
python datasets/check.py config/cfg_voc21.py --full        one, every file
python datasets/check.py large remote                      PC-459 and ADE-847, and the remote-sensing sets

Exit code: 0 where all are complete, 1 where something is missing or wrong.
"""

from __future__ import annotations

import os
import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from clearclip.commands.command_line import CommandParser, run_command
from clearclip.utils.printable import printable

CONFIG = Path(__file__).resolve().parents[1] / "config"
GROUPS = {
    "benchmarks": "voc21 context60 coco_object voc20 context59 coco_stuff164k city_scapes ade20k",
    "large": "pc459 ade847",
    "remote": "openearthmap loveda isaid potsdam vaihingen uavid udd5 vdd",
}
ROW = "{:<16}{:>18}{:>18}{:>10}   {}".format


def configs(name: str) -> list[Path]:
    """The config files of a group, or the one of this path."""
    return [CONFIG / f"cfg_{one}.py" for one in GROUPS[name].split()] if name in GROUPS else [Path(name)]


def main() -> int:
    """Check and print a table."""
    parser = CommandParser(prog="check.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    listed = f"a config file, or {', '.join(GROUPS)} (default: benchmarks)"
    parser.add_argument("config", nargs="*", default=["benchmarks"], help=listed)
    parser.add_argument("--data-root", help="a dataset's folder, or the folder that holds it under its usual name")
    parser.add_argument("--full", action="store_true", help="decode every image and mask")
    parser.add_argument("--sample", type=int, default=32, help="else open this many of each (default: %(default)s)")
    parser.add_argument("--nproc", type=int, default=os.cpu_count(), help="files at a time (default: %(default)s)")
    arguments = parser.parse_args()
    for name in ("sample", "nproc"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)}: give 1 or more")

    # Loaded after the arguments have been read, so that --help and misspelled options answer at once.
    from clearclip.evaluation.config import building, load_config
    from clearclip.evaluation.dataset_report import check_dataset

    reports = []
    for path in (path for name in arguments.config for path in configs(name)):
        cfg = load_config(path, data_root=arguments.data_root)
        with building(f"config {path}"):
            reports.append(check_dataset(cfg, None if arguments.full else arguments.sample, arguments.nproc))
    print(ROW("dataset", "images with mask", "valid of opened", "complete", "root"))
    for one in reports:
        counts = f"{one.pairs:,}/{one.expected or one.listed:,}", f"{one.valid:,}/{one.opened:,}"
        print(ROW(printable(one.name), *counts, "yes" if one.complete else "no", printable(one.root)))
    for one in reports:
        for line in (*one.problems, *one.remarks):
            print(printable(f"{one.name}: {line}"))
    complete = sum(one.complete for one in reports)
    print(f"{complete} of {len(reports)} complete")
    return int(complete < len(reports))


if __name__ == "__main__":
    sys.exit(run_command(main))

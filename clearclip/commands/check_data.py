"""What ``datasets/check.py`` and ``clearclip check`` do once their arguments have been read."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from clearclip.commands.check_data_parser import DATASET_GROUPS
from clearclip.evaluation.config import explaining_errors, load_config
from clearclip.evaluation.dataset_report import Report, check_dataset
from clearclip.utils.errors import UserError
from clearclip.utils.printable import printable

_ROW = "{:<16}{:>18}{:>18}{:>10}   {}".format


def config_names(name: str) -> list[str]:
    """The config files of a group, or the one that is named."""
    if name not in DATASET_GROUPS:
        return [name]
    return [f"cfg_{dataset}.py" for dataset in DATASET_GROUPS[name].split()]


def run_check_data(args: Namespace) -> int:
    """Check datasets and print a table.

    Returns:
        0 where all are complete, else 1.

    Raises:
        UserError: a number below 1, or a config that is wrong itself.
    """
    for name in ("sample", "nproc"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: give 1 or more; see --help")
    # None opens every file: on a large dataset that takes minutes, and is asked for.
    sample = None if args.full else args.sample
    reports: list[Report] = []
    for name in args.config:
        for config in config_names(name):
            cfg = load_config(config, data_root=args.data_root)
            with explaining_errors(f"config {config}"):
                reports.append(check_dataset(cfg, sample, args.nproc))
    _print_table(reports)
    for report in reports:
        _print_findings(report, args.full)
    complete = sum(report.complete for report in reports)
    print(f"{complete} of {len(reports)} complete")
    return int(complete < len(reports))


def _print_table(reports: Sequence[Report]) -> None:
    print(_ROW("dataset", "images with mask", "valid of opened", "complete", "root"))
    for report in reports:
        images = f"{report.images_with_mask:,}/{report.expected or report.images:,}"
        valid = f"{report.valid:,}/{report.opened:,}"
        complete = "yes" if report.complete else "no"
        print(printable(_ROW(report.name, images, valid, complete, report.root)))


def _print_findings(report: Report, every_file: bool) -> None:
    """Problems and remarks; with ``every_file`` each file that is wrong on a line of its own."""
    for finding in (*report.problems, *report.remarks):
        print(printable(f"{report.name}: {finding}"))
    # The first fault is named among the problems.
    if every_file and len(report.faults) > 1:
        for fault in report.faults:
            print(printable(f"{report.name}: wrong: {fault}"))

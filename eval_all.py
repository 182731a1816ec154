"""Regenerate the paper's tables: ``python eval_all.py --table 2``."""

import sys

from clearclip.commands.command_line import run_command


def main() -> int:
    """Imported late, so that a missing package is reported in one line."""
    from clearclip.commands.eval_all import main as evaluate_all

    return evaluate_all()


if __name__ == "__main__":
    sys.exit(run_command(main))

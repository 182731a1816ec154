"""Evaluate a benchmark: ``python eval.py --config config/cfg_voc21.py``."""

import sys

from clearclip.commands.command_line import run_command


def main() -> int:
    """Imported late, so that a missing package is reported in one line."""
    from clearclip.commands.eval import main as evaluate

    return evaluate()


if __name__ == "__main__":
    sys.exit(run_command(main))

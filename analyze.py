"""Why it works: the paper's statistics and ablations as figures. ``python analyze.py`` shows the miniature's."""

import sys

from clearclip.commands.command_line import run_command


def main() -> None:
    """Imported late, so that a missing package is reported in one line."""
    from clearclip.commands.analyze import main as analyze

    analyze()


if __name__ == "__main__":
    sys.exit(run_command(main))

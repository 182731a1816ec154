"""Segment a photograph by words: ``python demo.py photo.jpg --classes "sky, hill, tree, horse, grass"``."""

import sys

from clearclip.commands.command_line import run_command


def main() -> int:
    """Imported late, so that a missing package is reported in one line."""
    from clearclip.commands.demo import main as demo

    return demo()


if __name__ == "__main__":
    sys.exit(run_command(main))

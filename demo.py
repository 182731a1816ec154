"""Segment a photograph by words: ``python demo.py photo.jpg --classes "sky, hill, tree, horse, grass"``."""

import sys

from clearclip.commands.main import run_script

if __name__ == "__main__":
    sys.exit(run_script("demo"))

"""Check whether datasets are complete, and say what to do where they are not: ``python datasets/check.py --help``."""

import sys

from clearclip.commands.main import run_script

if __name__ == "__main__":
    sys.exit(run_script("check"))

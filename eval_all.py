"""Regenerate the paper's tables: ``python eval_all.py --table 2``."""

import sys

from clearclip.commands.main import run_script

if __name__ == "__main__":
    sys.exit(run_script("eval-all"))

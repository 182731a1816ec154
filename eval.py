"""Evaluate a benchmark: ``python eval.py --config config/cfg_voc21.py``."""

import sys

from clearclip.commands.main import run_script

if __name__ == "__main__":
    sys.exit(run_script("eval"))

"""Make COCO-Object's masks from COCO-Stuff 164k's: ``python datasets/cvt_coco_object.py --help``."""

import sys

from clearclip.commands.main import run_script

if __name__ == "__main__":
    sys.exit(run_script("convert-coco-object"))

"""Why it works: the paper's statistics and ablations as figures. ``python analyze.py`` shows the miniature's."""

import sys

from clearclip.commands.main import run_script

if __name__ == "__main__":
    sys.exit(run_script("analyze"))

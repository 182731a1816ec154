"""``python -m clearclip``: the command ``clearclip``."""

import sys

from clearclip.commands.main import main

if __name__ == "__main__":
    sys.exit(main())

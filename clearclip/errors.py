"""What a user can cause is told in one line: the culprit and the remedy."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """A fault that the user can mend. The message names the culprit and the remedy, in one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command line; turn a :class:`UserError` into one line on stderr.

    Returns:
        The exit code: what ``main`` returns (``None`` means 0), 2 for a :class:`UserError`, 130 for Ctrl-C.
    """
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130

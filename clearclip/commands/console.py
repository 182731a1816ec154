"""What all command lines share: errors and warnings in one line each."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from clearclip.utils.errors import UserError


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are a :class:`UserError`: one line, no usage text."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command line; turn a :class:`UserError` into one line on stderr.

    Returns:
        The exit code: what ``main`` returns (``None`` means 0), 2 for a :class:`UserError`, 130 for Ctrl-C.
    """
    warnings.showwarning = _show_warning
    rank = os.environ.get("RANK", "0")
    # Libraries that log in place of a warning look the same.
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING if rank == "0" else logging.ERROR)
    try:
        return main() or 0
    except UserError as error:
        print(f"error{'' if rank == '0' else f' (process {rank})'}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the source line that caused it."""
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

"""Which command goes on after an interruption.

Errors and Ctrl-C name it, in whatever process they happen: ``eval.py`` goes on with ``--resume``, and processes that
``eval_all.py`` started cannot know what the user typed. An environment variable tells them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "CLEARCLIP_CONTINUED_BY"


def command_to_continue() -> str:
    """What to say of the command: "the same command with --resume", unless :func:`continued_by` said otherwise."""
    return os.environ.get(_VARIABLE, "the same command with --resume")


@contextmanager
def continued_by(command: str) -> Iterator[None]:
    """Name another command in this process and in those that it starts meanwhile.

    Args:
        command: in words, such as "the same command".
    """
    earlier = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = command
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = earlier

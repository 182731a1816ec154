"""Checks of options: each takes an option's name and a value, and gives the value back or raises a one-line error."""

from __future__ import annotations

import difflib
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clearclip.utils.errors import UserError

Check = Callable[[str, Any], Any]

_WORDS = {
    bool: "True or False", int: "a whole number", float: "a number", str: "a string", os.PathLike: "a path",
    None: "None", Mapping: "a dict",
}  # fmt: skip


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The remedy for a name that is none of the ``known`` ones: the one that is most like it, or all of them."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def choice(*choices: str | None) -> Check:
    """One of these strings."""

    def check(name: str, value: Any) -> Any:
        if value not in choices:
            listed = ", ".join(str(choice) for choice in choices if choice is not None)
            raise UserError(f"unknown {name} {value!r}; choose from {listed}")
        return value

    return check


def of_type(*kinds: type | None, low: float = -math.inf, high: float = math.inf) -> Check:
    """A value of one of these types, or None; True and False are no numbers, and numbers are finite and from ``low`` to
    ``high``. Where float is among the types, whole numbers become such.
    """
    types = tuple(type(None) if kind is None else kind for kind in kinds)
    wanted = [kind for kind in kinds if not (kind is int and float in kinds)]

    def check(name: str, value: Any) -> Any:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        fits = isinstance(value, types) and (not isinstance(value, bool) or bool in kinds)
        if not fits or (numeric and not (abs(value) <= sys.float_info.max and low <= value <= high)):
            words = " or ".join(_WORDS.get(kind) or f"a {kind.__name__.lower()}" for kind in wanted)
            limits = "" if low == -math.inf else f" from {low:g}" + ("" if high == math.inf else f" to {high:g}")
            raise UserError(f"{name} must be {words}{limits}, not {value!r}")
        return float(value) if numeric and float in kinds else value

    return check

"""Checks of options: each takes an option's name and a value, and gives the value back or raises a one-line error."""

from __future__ import annotations

import difflib
import math
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from clearclip.utils.errors import UserError

Check = Callable[[str, Any], Any]

#: What an error calls a type.
_TYPE_WORDS = {
    bool: "True or False", int: "a whole number", float: "a number", str: "a string", os.PathLike: "a path",
    None: "None", Mapping: "a dict",
}  # fmt: skip


def did_you_mean(name: str, choices: Collection[str]) -> str:
    """The remedy for a name that is none of the ``choices``: the one that is most like it, or all of them."""
    similar_name = most_similar(name, choices)
    if similar_name:
        return f"did you mean {similar_name}?"
    return f"choose from {', '.join(choices)}"


def most_similar(name: str, choices: Collection[str]) -> str | None:
    """The one of the ``choices`` that somebody who wrote ``name`` may have meant; None where none is like it."""
    # Capitals are what is most often typed in another way: clearclip, Sc-Clip.
    choice_by_lower_case = {choice.lower(): choice for choice in choices}
    similar_names = difflib.get_close_matches(name.lower(), choice_by_lower_case, 1)
    if not similar_names:
        return None
    return choice_by_lower_case[similar_names[0]]


def choice(*choices: str | None) -> Check:
    """One of these strings."""

    def check(name: str, value: Any) -> Any:
        if value not in choices:
            names = [choice for choice in choices if choice is not None]
            raise UserError(f"unknown {name} {value!r}; {did_you_mean(str(value), names)}")
        return value

    return check


def of_type(*types: type | None, low: float = -math.inf, high: float = math.inf) -> Check:
    """A value of one of these types; None among them lets None through.

    True and False are no numbers, and numbers are finite and from ``low`` to ``high``. Where float is among the types,
    whole numbers become such.
    """

    def check(name: str, value: Any) -> Any:
        if not _is_of(value, types) or not _is_within(value, low, high):
            raise UserError(f"{name} must be {_describe(types, low, high)}, not {value!r}")
        # So that two spellings of one setting, 1 and 1.0, are equal wherever settings are compared as text.
        if float in types and _is_number(value):
            return float(value)
        return value

    return check


def _is_number(value: Any) -> bool:
    # In Python, True is an int.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_of(value: Any, types: Sequence[type | None]) -> bool:
    # Of "object" everything is an instance, None as well.
    if value is None:
        return None in types or object in types
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, tuple(value_type for value_type in types if value_type is not None))


def _is_within(value: Any, low: float, high: float) -> bool:
    """Whether a number is finite and within these limits; True for what is no number."""
    if not _is_number(value):
        return True
    return abs(value) <= sys.float_info.max and low <= value <= high


def _describe(types: Sequence[type | None], low: float, high: float) -> str:
    """What a value must be, such as "a number or None from 0 to 1"."""
    words = []
    for value_type in types:
        # "a number" says that whole ones are allowed.
        if value_type is int and float in types:
            continue
        words.append(_TYPE_WORDS.get(value_type) or f"a {value_type.__name__.lower()}")
    description = " or ".join(words)
    if low > -math.inf:
        description += f" from {low:g}"
    if high < math.inf:
        description += f" to {high:g}"
    return description

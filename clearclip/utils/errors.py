"""User errors are reported in one line: the culprit and the remedy."""

from __future__ import annotations

from typing import Any


class UserError(ValueError):
    """A fault that the user can fix. The message names the culprit and the remedy, in one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """``value`` as a float.

    Raises:
        UserError: it is no number from ``low`` to ``high``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(f"{name} must be a number from {low} to {high}, not {value!r}")
    return float(value)

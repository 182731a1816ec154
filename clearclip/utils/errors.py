"""User errors are reported in one line: the culprit and the remedy."""

from __future__ import annotations


class UserError(ValueError):
    """A fault that the user can fix. The message names the culprit and the remedy, in one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())

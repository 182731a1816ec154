"""User errors are reported in one line: the culprit and the remedy."""

from __future__ import annotations


class UserError(ValueError):
    """A fault that the user can fix. The message names the culprit and the remedy, in one line."""

    def __str__(self) -> str:
        # Errors of libraries, of which some are quoted, may have several lines.
        return " ".join(super().__str__().split())

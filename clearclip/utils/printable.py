"""Text of a user's files, for a terminal: nothing in it can move the cursor, change colours or hide other text."""

from __future__ import annotations

import unicodedata

#: Categories of Unicode that are no text: control characters, formats (such as marks that turn the direction of
#: writing), halves of pairs that a file name may have, and what is not assigned.
_NO_TEXT = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")
#: Formats that words are written with: joiners of some scripts and of emoji.
_PARTS_OF_WORDS = "\u200c\u200d"


def printable(text: object) -> str:
    r"""A text on one line, with escapes such as ``\x1b`` for what is no text.

    Example:
        >>> printable("sky\x1b[2J")
        'sky\\x1b[2J'
    """
    return "".join(map(_printable_letter, str(text)))


def _printable_letter(letter: str) -> str:
    if letter in _PARTS_OF_WORDS or unicodedata.category(letter) not in _NO_TEXT:
        return letter
    # Escapes in place of nothing: two files whose names differ in such a letter only stay two.
    return letter.encode("unicode_escape").decode("ascii")

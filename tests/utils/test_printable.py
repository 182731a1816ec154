"""Nothing that comes from a file can command a terminal."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from clearclip.utils.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sky", "sky"),
        ("sky\x1b[2J", r"sky\x1b[2J"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("line\u2028separator", r"line\u2028separator"),
        ("half \udc80 of a pair", r"half \udc80 of a pair"),
        ("Straße, 天空, क्‍ष, 👩\u200d🌾", "Straße, 天空, क्‍ष, 👩\u200d🌾"),
        (80.9, "80.9"),
    ],
)
def test_what_is_no_text_is_escaped(text, shown):
    assert printable(text) == shown


def test_every_character():
    shown = printable(
        "".join(map(chr, [*range(0x3000), *range(0xD7F0, 0x11000), *range(sys.maxunicode - 100, sys.maxunicode + 1)]))
    )
    assert shown.isprintable() or {letter for letter in shown if not letter.isprintable()} <= set(
        "\u200c\u200d\xa0"
    ) | {letter for letter in shown if unicodedata.category(letter) in ("Zs", "Co")}
    shown.encode()  # no halves of pairs

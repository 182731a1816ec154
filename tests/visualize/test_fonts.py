"""The font that draws a text."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from matplotlib.ft2font import FT2Font
from picture_checks import noise

from clearclip.visualize import fonts, sheet

FOLDER = Path(matplotlib.get_data_path(), "fonts", "ttf")


@pytest.fixture(autouse=True)
def forget_fonts():
    """Nothing that one test found is known to another."""
    caches = (fonts._font_with, fonts._letter_codes, fonts._warn_of_missing_letters)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_letters_that_no_font_has_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: ["/no/such/font.ttf"])
    with pytest.warns(UserWarning, match=r"no font of this system has all letters.*Noto Sans CJK") as told:
        for name in ("天空", "草"):
            sheet([(name, noise(40, 40))], 1)
    assert len(told) == 1


def test_the_regular_font_is_taken_and_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fonts that have the letters, bold and italic ones come last, whatever their names."""
    files = [str(FOLDER / name) for name in ("STIXGeneralBol.ttf", "STIXGeneralItalic.ttf", "STIXGeneral.ttf")]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: files)
    letters = set.intersection(*(set(FT2Font(file).get_charmap()) for file in files))
    letters -= set(FT2Font(str(FOLDER / "DejaVuSans.ttf")).get_charmap())
    assert letters, "letters that only the other fonts have"
    assert fonts.font_file(chr(min(letters))) == files[2]
    assert Path(fonts.font_file("sky")).name == "DejaVuSans.ttf", "a name in another script changes no other"


def test_fonts_of_this_system() -> None:
    file = fonts.font_file("天空")
    assert Path(file).is_file() and "Bold" not in FT2Font(file).style_name

"""Which font file draws a text: Matplotlib's DejaVu Sans, or else one of the system that has all of its letters."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

#: What fonts call their ordinary weight and slope.
REGULAR_STYLES = {"Regular", "Book", "Roman", "Normal"}


def font_file(text: str) -> str:
    """The path of a font that draws ``text``.

    Each text of a picture has a font of its own, so that one name in another script changes no other.
    """
    return _font_with(frozenset("".join(text.split())))


@cache
def _font_with(letters: frozenset[str]) -> str:
    """The font for a set of letters. Fonts of the system are searched only where DejaVu Sans lacks one."""
    from matplotlib import get_data_path

    default = str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    codes = {ord(letter) for letter in letters}
    if codes <= _letter_codes(default):
        return default
    from matplotlib.font_manager import findSystemFonts

    # Opens every font of the system, which takes a second or more.
    candidates = [path for path in findSystemFonts() if codes <= _letter_codes(path)]
    if candidates:
        return min(candidates, key=_unusualness)
    _warn_of_missing_letters()
    return default


@cache
def _letter_codes(path: str) -> frozenset[int]:
    """The Unicode code points that a font file has; none for a kind of font that FreeType does not read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def _unusualness(path: str) -> tuple[bool, bool, str]:
    """Sorts fonts: neither bold nor italic before others, sans serif before serif, then by path."""
    from matplotlib.ft2font import FT2Font

    font = FT2Font(path)
    is_serif_or_mono = any(style in font.family_name for style in ("Serif", "Mono"))
    return font.style_name not in REGULAR_STYLES, is_serif_or_mono, path


@cache  # once for each process
def _warn_of_missing_letters() -> None:
    warnings.warn(
        "no font of this system has all letters of the class names; some are drawn as boxes. Install one, such as "
        "Noto Sans CJK (fonts-noto-cjk)",
        stacklevel=2,
    )

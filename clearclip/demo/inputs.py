"""Which images and which words a person means."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from clearclip.errors import UserError
from clearclip.text import ClassWords

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jfif", ".avif"}


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Files, folders and glob patterns to image files, in order, each once.

    Raises:
        UserError: a file that is missing, a folder without images, a pattern that fits nothing.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        try:
            found.update(dict.fromkeys(_find(argument)))
        except OSError as error:
            shown = argument if len(argument) <= 80 else argument[:77] + "..."
            raise UserError(f"{shown} cannot be read ({error.strerror}); check its name and permissions") from error
    return list(found)


def _find(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        images = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not images:
            raise UserError(f"folder {path} has no image (such as .jpg or .png) in it")
    elif path.exists():
        images = [path]
    elif glob.has_magic(argument):
        # Path.glob takes no absolute patterns.
        images = [Path(name) for name in sorted(glob.glob(argument, recursive=True)) if Path(name).is_file()]  # noqa: PTH207
        if not images:
            raise UserError(f"no file fits {argument}; check the pattern")
    else:
        raise UserError(f"image {path} does not exist; check its name")
    return images


def read_words(text: str, background: bool = False) -> ClassWords:
    """Comma-separated words, each a class; white space around them is dropped, and so are repetitions.

    Args:
        text: such as "sky, tree, grass".
        background: put a class "background" first, as label 0.

    Raises:
        UserError: no word, an empty one, or a single one, which would cover the whole image.
    """
    if not text.strip():
        raise UserError('no words given; name what to look for, such as "sky, tree, grass"')
    words = [" ".join(word.split()) for word in text.split(",")]
    if not all(words):
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise UserError(f"there is an empty word in {shown!r}; check the commas")
    return with_background(ClassWords.parse(list(dict.fromkeys(words)), source="words"), background)


def with_background(classes: ClassWords, background: bool) -> ClassWords:
    """``classes``, with "background" as label 0 where it is asked for.

    Raises:
        UserError: there is but one class, which would cover the whole image.
    """
    if background:
        others = tuple(words for words in classes.classes if words[0].lower() != "background")
        named = [words for words in classes.classes if words[0].lower() == "background"]
        classes = ClassWords((named[0] if named else ("background",), *others))
    if len(classes) < 2:
        raise UserError(
            f"{classes.names[0]!r} alone would cover the whole image; give at least two words, or add the background"
        )
    return classes

"""Which images and which words the user means."""

from __future__ import annotations

import glob
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from clearclip.miniature import BENCHMARK, CLASSES
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jfif", ".avif"}
#: The miniature's scenes that are shown when no image is given: some with many classes.
SCENES = [BENCHMARK / "images" / "val" / f"{scene}.png" for scene in ("0022", "0047", "0016")]


def find_images(arguments: Sequence[str]) -> list[Path]:
    """The image files of files, folders and glob patterns, in order, each once; a UserError where one has none."""
    found: dict[Path, None] = {}
    for argument in arguments:
        path = Path(argument)
        try:
            if path.is_dir():
                images = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            else:
                images = [path] if path.exists() else map(Path, sorted(glob.glob(argument, recursive=True)))  # noqa: PTH207
            images = [image for image in images if image.is_file()]
        except OSError as error:
            raise UserError(f"{argument[:80]} cannot be read ({error.strerror}); check its name") from error
        if not images:
            raise UserError(f"no image at {argument}; give image files, folders with images or glob patterns")
        found.update(dict.fromkeys(images))
    return list(found)


def choose_classes(args: Namespace, bundled: bool, background: bool) -> ClassWords:
    """The classes that were named, or, if ``bundled``, the miniature's; see :func:`read_words`."""
    if args.classes is not None and args.name_path is not None:
        raise UserError("--classes and --name-path both name the classes; give one of them")
    if args.name_path is not None:
        return with_background(ClassWords.read(args.name_path), background)
    return read_words(", ".join(CLASSES) if bundled and args.classes is None else args.classes or "", background)


def read_words(text: str, background: bool = False) -> ClassWords:
    """Comma-separated words, each a class, without repetitions; a UserError where there are none."""
    words = dict.fromkeys(" ".join(word.split()) for word in text.split(",") if word.strip())
    if not words:
        raise UserError('no words given; name what to look for, such as "sky, tree, grass"')
    return with_background(ClassWords.parse(list(words)), background)


def with_background(classes: ClassWords, background: bool) -> ClassWords:
    """``classes``, with "background" as label 0 if ``background``; a single class alone is a UserError."""
    if background:
        named = [words for words in classes.classes if words[0].lower() == "background"] or [("background",)]
        classes = ClassWords((named[0], *(words for words in classes.classes if words not in named)))
    if len(classes) < 2:
        raise UserError(f"{classes.names[0]!r} alone would cover the whole image; give two words, such as background")
    return classes

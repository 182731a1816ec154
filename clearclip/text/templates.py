"""Prompt templates by name, or from a file."""

from __future__ import annotations

import os
from functools import partial

import open_clip

from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path

_TALK2DINO = (
    "itap of a {}.", "a bad photo of a {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.",
)  # fmt: skip
#: Templates by name: the word takes the place of {}. The nine are TCL's with TIPSv2's addition.
TEMPLATES_BY_NAME: dict[str, tuple[str, ...]] = {
    "imagenet80": tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES),
    "tips9": (*_TALK2DINO, "a photo of many {}.", "a photo of {}s."),
    "talk2dino7": _TALK2DINO,
    "one": ("a photo of a {}.",),
}


def read_templates(name: str | os.PathLike[str]) -> tuple[partial[str], ...]:
    """The templates of a name, or of a UTF-8 file with one a line.

    Raises:
        UserError: neither a name nor a file that can be read, or a line without ``{}``.
    """
    templates = TEMPLATES_BY_NAME.get(str(name))
    if templates is None:
        templates = _read_template_file(name)
    # Partials and no lambdas, since the functions are part of the cache's key and go to other processes.
    return tuple(partial(fill_template, template) for template in templates)


def _read_template_file(path: str | os.PathLike[str]) -> tuple[str, ...]:
    try:
        lines = user_path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"templates {str(path)[:200]!r} is neither a name ({', '.join(TEMPLATES_BY_NAME)}) nor a text file"
        ) from error
    templates = tuple(line.strip() for line in lines if line.strip())
    # A template without a place for the word would give all classes the same feature.
    faulty_lines = [line for line in templates if line.count("{}") != 1]
    if not templates:
        faulty_lines = ["an empty file"]
    if faulty_lines:
        raise UserError(
            f"templates {path}: {faulty_lines[0]!r} needs {{}} once, for the word; write one template a line"
        )
    return templates


def fill_template(template: str, word: str) -> str:
    """A template with a word in its place."""
    # Not str.format: a word may have braces of its own.
    return template.replace("{}", word)

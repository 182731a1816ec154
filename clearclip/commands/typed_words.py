"""Class names as people type them: on a command line, in a field of the page, or copied from a program's list."""

from __future__ import annotations

import re
import shlex
from argparse import Namespace
from typing import NoReturn

from clearclip.commands.image_search import is_there, refuse_split_names
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError

#: Letters that keyboards of other languages, and word processors, put in the place of a comma and of quotes.
COMMAS = str.maketrans(dict.fromkeys("，、\n\r", ","))
QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"})
BRACKETS = {"[": "]", "(": ")", "{": "}"}
#: A class in quotes, up to the next comma: the quotes, what is within, what comes after.
QUOTED_CLASS = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'(?=\s*(?:,|$)))\s*([^,]*)(?:,|$)""")
PLAIN_CLASS = re.compile(r"([^,]*)(?:,|$)")


def read_words(text: str, background: bool = False) -> ClassWords:
    """Classes with commas between them, without repetitions.

    Lists of Python and JSON, quotes around classes, a class in each line and the commas of Chinese and Japanese are
    understood, too.

    Raises:
        UserError: there are none, or it is not clear where a class ends; shows the right spelling.
    """
    names: dict[str, None] = {}
    for name in split_words(text):
        # Keeps the order and drops repetitions.
        names[" ".join(name.split())] = None
    if not names:
        raise UserError('no words given; name what to look for with --classes, such as "sky, tree, grass"')
    if len(names) == 1 and not background:
        _refuse_single_class(next(iter(names)))
    return with_background(ClassWords.parse(list(names)), background)


def split_words(text: str) -> list[str]:
    """The classes of a text, without the brackets and quotes of a list; blank ones are left out.

    Raises:
        UserError: a class that holds a comma, a separator other than a comma, or brackets and quotes that do not match.
    """
    # Python's own reader of lists would join "['sky' 'tree']" to one class.
    text = _without_brackets(text.translate(COMMAS).strip())
    if ";" in text:
        _refuse(text, "classes are separated by commas, not by ;")
    names = []
    position = 0
    while position < len(text):
        quoted = QUOTED_CLASS.match(text, position)
        match = quoted or PLAIN_CLASS.match(text, position)
        if quoted:
            name = _unquoted(text, quoted)
        else:
            name = match[1].strip()
        if name:
            names.append(name)
        position = match.end()
    for name in names:
        if re.search(r'["“”„\[\]{}]', name) or re.match(r"['‘].*['’]$", name):
            _refuse(text, f"{name!r} has a bracket or a quote that belongs to no list")
    return names


def _without_brackets(text: str) -> str:
    """``text`` without the brackets around a list."""
    opening, closing = text[:1], text[-1:]
    is_opened, is_closed = opening in BRACKETS, closing in BRACKETS.values()
    if not text or not (is_opened or is_closed):
        return text.translate(QUOTES)
    if is_opened and BRACKETS[opening] == closing:
        return text[1:-1].translate(QUOTES)
    if "(" in text and closing == ")" and not is_opened:
        return text.translate(QUOTES)  # a remark at the end of a class: bat (animal)
    return _refuse(text, "its brackets do not match")


def _unquoted(text: str, match: re.Match) -> str:
    """What is within the quotes of a class."""
    name = match[1] if match[1] is not None else match[2]
    if match[3].strip():
        _refuse(text, f"there is no comma after {match[0].rstrip(', ')!r}")
    if "," in name:
        either = " | ".join(word.strip() for word in name.split(","))
        raise UserError(
            f"the class {name!r} has a comma; write {either!r} for several words of one class, or a class for each"
        )
    return name.strip()


def _refuse(text: str, reason: str) -> NoReturn:
    """An error with the spelling that may have been meant."""
    raise UserError(f"{text[:200]!r}: {reason}; write {suggested_spelling(text)}")


def _refuse_single_class(name: str) -> NoReturn:
    """An error for a class that would cover the whole image, such as several words without commas."""
    message = f"{name!r} alone would cover the whole image; give two classes or more"
    if re.search(r"\w[\s/.|&+]+\w", name):
        message += f", with commas between them: {suggested_spelling(name)}"
    raise UserError(f"{message}, or add --background")


def suggested_spelling(text: str) -> str:
    """The words of a text as ``--classes "sky, tree"``."""
    words = re.findall(r"\w+(?:['’-]\w+)*", text)
    return f'--classes "{", ".join(dict.fromkeys(words[:20]))}"'


def with_background(classes: ClassWords, background: bool) -> ClassWords:
    """``classes``, with "background" as label 0 if ``background``; a single class alone is a UserError."""
    if background:
        background_words: tuple[str, ...] = ("background",)
        foreground = []
        for words in classes.classes:
            if words[0].lower() == "background":
                background_words = words
            else:
                foreground.append(words)
        classes = ClassWords((background_words, *foreground))
    if len(classes) < 2:
        raise UserError(f"{classes.names[0]!r} alone would cover the whole image; give two words, such as background")
    return classes


def check_stray_words(args: Namespace) -> None:
    """Notice classes, and names with blanks, that the shell has split, since there are no quotes around them.

    Raises:
        UserError: one of the images is no file and looks like a word; shows the right spelling.
    """
    refuse_split_names(args.images)
    if args.classes is None:
        return
    words = []
    images = []
    # The shell splits --classes sky, tree at the blank, and the parser takes "tree" for an image. Quotes of a word
    # processor are letters to the shell.
    for argument in args.images:
        if re.fullmatch(r"[\w'’,|“”„-]+", argument) and not is_there(argument):
            words.append(argument)
        else:
            images.append(shlex.quote(argument))
    if not words:
        return
    spelling = suggested_spelling(" ".join([args.classes, *words]))
    raise UserError(
        f"no image at {words[0][:100]}; if it is something to look for, put one pair of quotes around all classes: "
        f"{' '.join([*images, spelling])[:1000]}"
    )

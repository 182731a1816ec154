"""Class names and the words that stand for them."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path

#: A number with its class, columns of a table, the beginning of JSON.
_NO_WORDS = re.compile(r"\s*(\d+\s*[:=;.)\t]|[\[{\"]|[^\t]+\t+[^\t\s])")


@dataclass(frozen=True)
class ClassWords:
    """Classes in label order, each with one or more words.

    Attributes:
        classes: the words of each class, in label order.
    """

    classes: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, lines: Sequence[str], source: str = "class names") -> ClassWords:
        """Read one class per line; ``|`` separates the words of a class (and so do commas, as in the paper's files).

        Raises:
            UserError: no class, a blank line, an empty word or a control character; names the ``source`` and the line.
        """
        if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
            raise UserError(f"{source}: expected a list of strings, one class each, got {lines!r}")
        if not lines:
            raise UserError(f"{source}: no class given; name at least one")
        # Numbered from 1, as editors number the lines of a names file.
        classes = []
        for number, line in enumerate(lines, start=1):
            classes.append(_parse_line(line, f"{source}: line {number}"))
        return cls(tuple(classes))

    @classmethod
    def read(cls, path: str | Path) -> ClassWords:
        """Read a names file (UTF-8, one class per line).

        Raises:
            UserError: the file is missing, is no text or has a blank line.
        """
        if not isinstance(path, str | Path):
            raise UserError(f"name_path must be a file with one class per line, not {path!r}")
        try:
            if user_path(path).is_fifo():  # it might be waited for without end
                raise OSError(0, "it is no file")
            text = user_path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            reason = f"names file {str(path)[:400]} cannot be read ({error.strerror})"
            raise UserError(f"{reason}; give name_path a file with one class per line") from error
        except UnicodeDecodeError as error:
            raise UserError(f"names file {path} is not UTF-8 text; save it as UTF-8, one class per line") from error
        lines: list[str] = []
        if text.strip():
            # Blank lines at the end are no classes; one in between is, and is refused.
            lines = text.rstrip().split("\n")
        suspicious_lines = [line.strip() for line in lines if _NO_WORDS.match(line)]
        if suspicious_lines:
            excerpt = suspicious_lines[0]
            if len(excerpt) >= 40:
                excerpt = f"{excerpt[:40]}…"
            # No error: "2: sky" may be meant. But a table's numbers would be taken as words in silence.
            warnings.warn(
                f"names file {path}: {excerpt!r} is taken as words; a line is a class and has its words only, no "
                "number, table or JSON",
                stacklevel=2,
            )
        return cls.parse(lines, source=f"names file {path}")

    @property
    def words(self) -> list[str]:
        """All words in order, (words,); a word of two classes stands twice."""
        return [word for words in self.classes for word in words]

    @property
    def names(self) -> list[str]:
        """A name per class: its first word, or all of them where another class begins with the same; a class that has
        the very words of one before it has a number.
        """
        classes_of_first_word = Counter(words[0] for words in self.classes)
        classes_of_name: Counter[str] = Counter()
        names = []
        for words in self.classes:
            name = words[0]
            if classes_of_first_word[name] > 1:
                name = "|".join(words)
            # Reports and legends have a column or colour for each name.
            classes_of_name[name] += 1
            if classes_of_name[name] > 1:
                name = f"{name} ({classes_of_name[name]})"
            names.append(name)
        return names

    @property
    def word_to_class(self) -> list[int]:
        """The class of each word, ascending from 0."""
        return [label for label, words in enumerate(self.classes) for _ in words]

    def __len__(self) -> int:
        return len(self.classes)


def _parse_line(line: str, position: str) -> tuple[str, ...]:
    """The words of one class. ``position`` says where the line is, for errors."""
    words = tuple(word.strip() for word in re.split("[,|]", line))
    # A tab is a control character, too, and stands between words of tables that people paste.
    categories = {unicodedata.category(letter) for letter in line.replace("\t", " ")}
    if categories & {"Cc", "Cs"}:
        raise UserError(f"{position} ({line!r}) has a control character or is no text; correct it")
    if not line.strip():
        raise UserError(f"{position} is blank; every line is a class, so remove or fill it")
    if not all(words):
        raise UserError(f"{position} ({line.strip()!r}) has an empty word; check its , and |")
    return words

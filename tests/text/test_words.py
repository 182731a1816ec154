"""Names files: a class a line."""

from __future__ import annotations

import warnings

import pytest

from clearclip import UserError
from clearclip.text import ClassWords


def test_names_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffbackground\n person,  man ,woman\r\ndog\n\n")
    words = ClassWords.read(path)
    assert words.classes == (("background",), ("person", "man", "woman"), ("dog",))
    assert words.names == ["background", "person", "dog"]
    assert ClassWords.parse(["sky", "tree", "sky", "tree | oak"]).names == ["sky", "tree", "sky (2)", "tree|oak"]
    assert words.words == ["background", "person", "man", "woman", "dog"]
    assert words.word_to_class == [0, 1, 1, 1, 2]
    assert len(words) == 3


@pytest.mark.parametrize(
    "text, message", [("a\n  \nb", "line 2 is blank"), ("a\nb,,c", "line 2 .*empty word"), ("", "no class")]
)
def test_bad_names_file(tmp_path, text, message):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        ClassWords.read(tmp_path / "names.txt")


@pytest.mark.parametrize("letter", ["\a", "\x85", "\udcff"])
def test_what_is_no_text_is_no_word(letter):
    with pytest.raises(UserError, match=r"line 2 .* control character or is no text"):
        ClassWords.parse(["sky", f"a{letter}b"])


@pytest.mark.parametrize(
    "odd", ["0: unlabeled", "7\ttree", "tree\t[107, 142, 35]", '{"0": "tree"}', '["sky", "tree"]', "3. sky"]
)
def test_a_names_file_that_is_none(odd, tmp_path):
    """A hint; words that begin with a number are words."""
    file = tmp_path / "names.txt"
    file.write_text(f"3d printer, 2 wheeler\n{odd}\n")
    with pytest.warns(UserWarning, match="is taken as words; a line is a class"):
        ClassWords.read(file)
    file.write_text("3d printer, 2 wheeler\nsky\t\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ClassWords.read(file)) == 2

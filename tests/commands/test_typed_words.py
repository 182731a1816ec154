"""Class names as people type them: understood, or refused with the right spelling."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from clearclip.commands.analyze_parser import analyze_parser
from clearclip.commands.demo_parser import demo_parser
from clearclip.commands.image_search import search_images
from clearclip.commands.typed_words import check_stray_words, read_words, with_background
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError

UNDERSTOOD = {
    " sky,,old  tree, sky": [("sky",), ("old tree",)],
    "sky, hill | mountain": [("sky",), ("hill", "mountain")],
    "['sky', 'tree']": [("sky",), ("tree",)],
    '["sky", "old tree"]': [("sky",), ("old tree",)],
    "('sky', 'tree',)": [("sky",), ("tree",)],
    "[sky, tree]": [("sky",), ("tree",)],
    "{'sky', 'tree'}": [("sky",), ("tree",)],
    '"sky", "hill | mountain"': [("sky",), ("hill", "mountain")],
    "“sky”, ‘tree’": [("sky",), ("tree",)],
    "sky\ntree\r\ngrass\n": [("sky",), ("tree",), ("grass",)],
    "天空，草、树": [("天空",), ("草",), ("树",)],
    "painter's easel, dog's bed": [("painter's easel",), ("dog's bed",)],
    "bat (animal), bat (club)": [("bat (animal)",), ("bat (club)",)],
    "St. Bernard, 3.5 inch disk": [("St. Bernard",), ("3.5 inch disk",)],
}
REFUSED = {
    "sky; tree": '--classes "sky, tree"',
    "sky; tree, boat": '--classes "sky, tree, boat"',
    "sky tree boat": '--classes "sky, tree, boat"',
    "sky. tree. boat": '--classes "sky, tree, boat"',
    "sky/tree": '--classes "sky, tree"',
    "sky | tree": '--classes "sky, tree"',
    "['sky' 'tree']": '--classes "sky, tree"',
    "['sky', 'tree'": '--classes "sky, tree"',
    "sky, tree]": '--classes "sky, tree"',
    '{"sky": 1, "tree": 2}': "--classes",
    '["sky", ["tree", "bush"]]': '--classes "sky, tree, bush"',
    '["sky", "pole, column"]': "write 'pole | column' for several words of one class",
    '"sky, "tree"': "--classes",
    "": "no words given",
    " , ": "no words given",
    "[]": "no words given",
    "sky": "'sky' alone would cover the whole image",
    "sky, sky": "'sky' alone would cover the whole image",
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_understood(text: str) -> None:
    assert list(read_words(text).classes) == UNDERSTOOD[text]


@pytest.mark.parametrize("text", REFUSED)
def test_refused_with_the_right_spelling(text: str) -> None:
    with pytest.raises(UserError) as error:
        read_words(text)
    assert REFUSED[text] in str(error.value)


def test_background() -> None:
    assert read_words("tree, Background", background=True).names == ["Background", "tree"]
    assert with_background(ClassWords.parse(["sky"]), True).names == ["background", "sky"]
    assert read_words("polar bear", background=True).names == ["background", "polar bear"]
    with pytest.raises(UserError, match="'sky' alone"):
        with_background(ClassWords.parse(["sky"]), False)


@pytest.mark.parametrize("parser", [demo_parser, analyze_parser])
def test_classes_may_be_repeated(parser) -> None:
    args = parser().parse_args(["--classes", "sky", "--classes", "tree, boat"])
    assert read_words(args.classes).names == ["sky", "tree", "boat"]


@pytest.mark.parametrize(("line", "spelling"), [
    ("--classes sky, tree photo.jpg", 'photo.jpg --classes "sky, tree"'),
    ("photo.jpg --classes sky tree boat", 'photo.jpg --classes "sky, tree, boat"'),
    ("--classes “sky, tree” photo.jpg", 'photo.jpg --classes "sky, tree"'),
    ("photo.jpg --classes sky, tree, boat", 'photo.jpg --classes "sky, tree, boat"'),
])  # fmt: skip
def test_missing_quotes(line: str, spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(b"")
    with pytest.raises(UserError) as error:
        check_stray_words(demo_parser().parse_args(line.split()))
    assert spelling in str(error.value) and "one pair of quotes" in str(error.value)


@pytest.mark.parametrize(("line", "spelling"), [
    ('my lesson --classes "cat,dog"', "'my lesson'"), ("x.png my old lesson", "'my old lesson'"),
    ("cat & dog.jpg photo.jpg", "'cat & dog.jpg'"),
])  # fmt: skip
def test_names_with_blanks(line: str, spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell has split at its blanks is recognised, for the analysis as well."""
    monkeypatch.chdir(tmp_path)
    Path("my lesson").mkdir()
    Path("my old lesson").mkdir()
    Path("cat & dog.jpg").touch()
    args = demo_parser().parse_args(line.split())
    for check in (lambda: check_stray_words(args), lambda: search_images(args.images)):
        with pytest.raises(UserError, match="put quotes around a name with blanks: ") as error:
            check()
        assert str(error.value).endswith(spelling)


def test_images_are_no_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are there, and names that can only be files, are left to the search for images."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for images in (["photos"], ["missing.jpg"], ["sub/missing"], ["*.png"]):
        check_stray_words(Namespace(images=images, classes="sky, tree"))
    check_stray_words(Namespace(images=["missing"], classes=None))

"""What eval.py prints of its results: numbers for every class, and no name that commands a terminal or a format."""

from __future__ import annotations

import io
import logging
import sys
import warnings

import numpy as np
import pytest
from conftest import rows_of
from quick_runs import config, quick
from recorded_runs import evaluation

from clearclip import UserError
from clearclip.commands.command_line import run_command
from clearclip.commands.eval import eval_command, report

NAMES = ["[/b]", "[red]sky[/red]", "a\x1b[2Jb", "=1+1", "x|notes", "half \udc80", "two\nlines"]


@pytest.fixture
def odd_evaluation():
    """An evaluation whose names are made to be misread."""
    run = evaluation(failures={"a\x1b]0;title\x07.jpg": "cut\x1b[31m short"})
    run.classes = NAMES
    run.scores.__dict__["confusion"] = np.diag([3] * len(NAMES))
    run.facts["dataset"]["name"] = "[bold]my\x1b[2J set"
    return run


def test_names_are_printed_as_they_are(odd_evaluation, capsys):
    report([odd_evaluation])
    out = capsys.readouterr().out
    for shown in ("[/b]", "[red]sky[/red]", r"a\x1b[2Jb", "=1+1", "x|notes", r"half \udc80", r"two\nlines"):
        assert shown in out
    assert r"skipped a\x1b]0;title\x07.jpg: cut\x1b[31m short" in out
    assert r"[bold]my\x1b[2J set, ClearCLIP: aAcc 100.00  mIoU 100.00  mAcc 100.00" in out
    assert "\x1b" not in out and "\x07" not in out


def test_several_methods_are_columns(capsys):
    first, second = evaluation(hits=900), evaluation(hits=500)
    second.facts["method"]["label"] = "[/b]other"
    report([first, second])
    out = capsys.readouterr().out
    assert "[/b]other" in out and "90.00" in out and "50.00" in out
    assert "10 images, 2.0 s, 5.0 images/s" in out


@pytest.mark.parametrize(
    ("reasons", "line"),
    [
        ([], None),
        (
            ["images is 3, published 200"],
            "in no published cell: images is 3, published 200; eval_all.py --explain tells more",
        ),
        (["a\x1b[2J", "b", "c"], r"in no published cell: a\x1b[2J; eval_all.py --explain tells 2 more"),
    ],
)
def test_a_run_that_fills_no_cell_says_why(reasons, line, capsys):
    """Once, where all methods have the same reasons."""
    first, second = evaluation(), evaluation()
    first.not_published_because = second.not_published_because = reasons
    report([first, second])
    lines = [text for text in capsys.readouterr().out.splitlines() if "published cell" in text]
    assert lines == ([line] if line else [])


def test_what_does_not_occur_has_no_number(capsys):
    run = evaluation()
    run.scores.confusion[:] = 0
    report([run])
    assert "mIoU –" in capsys.readouterr().out


def test_errors_warnings_and_logs_are_escaped(capsys):
    def fail():
        warnings.warn("odd\x1b[2J name", stacklevel=1)
        raise UserError("bad\x1b[2J file")

    assert run_command(fail) == 2
    err = capsys.readouterr().err
    assert err == "warning: odd\\x1b[2J name\nerror: bad\\x1b[2J file\n"


def test_what_libraries_log_is_escaped():
    from clearclip.commands.command_line import _PrintableFormatter

    record = logging.LogRecord("x", logging.WARNING, "", 0, "weights\x1b[2J\nof %s", ("a\x07",), None)
    assert _PrintableFormatter("warning: %(message)s").format(record) == "warning: weights\\x1b[2J\nof a\\x07"


@pytest.mark.parametrize("fault", [BrokenPipeError, UnicodeEncodeError("ascii", "–", 0, 1, "no"), OSError(28, "full")])
def test_what_cannot_be_printed_is_recorded(fault, tmp_path, quick_name, monkeypatch):
    """A closed pipe, a console of few letters or a full disk behind stdout: the same exit code and the same row."""

    class Broken(io.StringIO):
        def write(self, text):
            raise fault

    arguments = ["--config", config("miniature"), "--limit", "1", "--workdir", str(tmp_path / "w"), "--workers", "0"]
    arguments += ["--results", str(tmp_path / "r.xlsx"), *quick(quick_name)]
    monkeypatch.setattr(sys, "stdout", Broken())
    assert run_command(lambda: eval_command(arguments)) == 0
    assert len(rows_of(tmp_path / "r.xlsx")) == 1
    assert (tmp_path / "r.xlsx").is_file()

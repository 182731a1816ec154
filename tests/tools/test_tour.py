"""What ``make demo`` runs."""

from __future__ import annotations

import functools
import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import rows_of
from quick_runs import ROOT

from clearclip.evaluation.run import evaluate as evaluate_config


def test_the_tour(tmp_path, monkeypatch, capsys):
    """What ``make demo`` runs, on a few images."""
    monkeypatch.chdir(tmp_path)
    short = functools.partial(evaluate_config, limit=5, workers=0)
    monkeypatch.setattr("clearclip.evaluation.run.evaluate", short)
    monkeypatch.setattr(sys, "argv", ["tools/tour.py"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "tools" / "tour.py"), run_name="__main__")
    assert not stop.value.code
    assert re.search(r"CLIP +mIoU +\d.*\nClearCLIP +mIoU +\d.*\n5 images", capsys.readouterr().out)
    assert [row["method"] for row in rows_of("results.xlsx")] == ["CLIP", "ClearCLIP"]
    assert Path("outputs/tour/tour.png").is_file()

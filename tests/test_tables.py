"""eval_all.py: plans, runs that are not repeated, runs that fail, and a table that is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clearclip import UserError
from clearclip.evaluation.table import plan, select_datasets, select_rows
from clearclip.evaluation.table_command import main
from clearclip.methods import choose_method
from clearclip.reports.results import read_rows
from clearclip.reports.tables import BENCHMARKS, row_method, table_rows

ROOT = Path(__file__).resolve().parents[1]


def test_rows_are_the_methods_that_they_name():
    """From spec section 1: attention, residual, FFN of each row."""
    wanted = {
        ("CLIP", "no"): ("qk", True, True),
        ("CLIP", "yes"): ("qq", False, False),
        ("BLIP", "no"): ("qk", True, True),
        ("BLIP", "yes"): ("qq", False, False),
        ("OpenCLIP", "no"): ("qk", True, True),
        ("OpenCLIP", "yes"): ("qq", False, False),
        ("MetaCLIP", "no"): ("qk", True, True),
        ("MetaCLIP", "yes"): ("qq", False, False),
        ("MaskCLIP", "no"): ("identity", True, True),
        ("MaskCLIP", "yes"): ("identity", False, False),
        ("SCLIP", "no"): ("qq+kk", True, True),
        ("SCLIP", "yes"): ("qq+kk", False, False),
        ("GEM", "no"): ("gem", True, False),
        ("GEM", "yes"): ("gem", False, False),
    }
    rows = table_rows("2")
    assert len(rows) == 28
    for row in rows:
        assert row_method(row) == wanted[row.name, row.clearclip]
        method = choose_method(row.options["model_type"], row.options["ignore_residual"])
        assert (method.attention, method.residual, method.ffn) == wanted[row.name, row.clearclip]
        assert row.options["clip_type"] == (row.name if row.name in ("BLIP", "OpenCLIP", "MetaCLIP") else "CLIP")


def test_vanilla_without_residual_is_warned_of():
    with pytest.warns(UserWarning, match="no row of the paper's table"):
        choose_method("vanilla", True)


def test_ablation_has_every_combination():
    rows = select_rows("ablation", False, None, None)
    assert len({row_method(row) for row in rows}) == len(rows) == 6 * 2 * 2
    assert {row.vit for row in rows} == {"ViT-B/16"}


def test_plans():
    assert [row.vit for row in select_rows("benchmarks", False, None, None)] == ["ViT-B/16"]
    assert select_datasets("benchmarks", False, None) == BENCHMARKS
    rows = select_rows("2", False, ["MaskCLIP", "SCLIP + ClearCLIP"], ["ViT-L/14"])
    assert [(row.name, row.clearclip) for row in rows] == [("MaskCLIP", "no"), ("MaskCLIP", "yes"), ("SCLIP", "yes")]
    runs = plan(rows, ("voc20", "ade20k"), ROOT, {}, None)
    assert [(run.row.name, run.dataset, run.images) for run in runs[:2]] == [
        ("MaskCLIP", "voc20", 1449),
        ("MaskCLIP", "ade20k", 2000),
    ]
    assert runs[0].settings["attention"] == "identity"
    (run,) = plan(select_rows("background", False, ["CLIP"], ["ViT-B/16"])[:1], ("voc21",), ROOT, {}, None)
    assert run.settings["prob_thd"] == 0.2


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (lambda: select_rows("2", False, ["DeepLab"], None), "unknown row 'DeepLab'.*MaskCLIP"),
        (lambda: select_rows("2", False, None, ["ViT-H/14"]), "unknown vit.*ViT-L/14"),
        (lambda: select_rows("2", True, ["BLIP"], None), "unknown row 'BLIP'"),
        (lambda: select_datasets("2", False, ["voc21"]), "unknown dataset 'voc21'.*voc20"),
    ],
)
def test_unknown_names_list_the_valid_ones(select, message):
    with pytest.raises(UserError, match=message):
        select()


def start(arguments: list[str], folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "eval_all.py"), "--miniature", "--limit", "3", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def test_a_killed_table_goes_on(tmp_path):
    """Killed after its first row, started again, and again: every run is there once."""
    arguments = ["--rows", "CLIP", "SCLIP + ClearCLIP"]
    first = start(arguments, tmp_path)
    while first.poll() is None and not read_rows(tmp_path / "results.xlsx"):
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert read_rows(tmp_path / "results.xlsx")
    recorded = len(read_rows(tmp_path / "results.xlsx"))
    time.sleep(3)
    assert len(read_rows(tmp_path / "results.xlsx")) == recorded, "a child lived on"
    second = start(arguments, tmp_path)
    out, _ = second.communicate(timeout=200)
    assert second.returncode == 0, out
    rows = read_rows(tmp_path / "results.xlsx")
    methods = [(row["settings"]["attention"], row["settings"]["residual"]) for row in rows]
    assert sorted(methods) == [("qk", True), ("qq", False), ("qq+kk", False)]
    assert re.search(r"\d skipped", out)
    third = start(arguments, tmp_path)
    out, _ = third.communicate(timeout=60)
    assert "0 done; 3 skipped; 0 failed" in out
    assert read_rows(tmp_path / "results.xlsx") == rows


def test_a_failing_run_does_not_stop_the_others(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    # 64-pixel windows every 96 pixels cannot be: each run fails in its own process with its own words.
    options = ["--cfg-options", "model.slide_stride=96"]
    code = main(ROOT, ["--miniature", "--limit", "2", "--rows", "MaskCLIP", *options])
    out = capfd.readouterr().out
    assert code == 1
    assert "0 done; 0 skipped; 2 failed" in out
    assert out.count("slide_stride 96 is larger than slide_crop 64") >= 2
    assert read_rows("results.xlsx") == []


def test_dry_run_and_markdown_run_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(ROOT, ["--table", "2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 28 * 5
    assert "CLIP + ClearCLIP, ViT-B/16 on ade20k: 2000 images" in out
    assert main(ROOT, ["--table", "2", "--markdown", "--rows", "GEM + ClearCLIP"]) == 0
    assert "| ViT-L/14 | GEM | yes | – (79.7) |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []

"""What eval_all.py prints: plans, tables in every format, explanations, and what became of the rows."""

from __future__ import annotations

import csv
import io

import pytest
from recorded_runs import append_run, find_row

from clearclip import UserError
from clearclip.commands.eval_all import eval_all_command
from clearclip.results.records import records_path


def test_dry_run_and_formats_run_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLEARCLIP_DATA", raising=False)
    assert eval_all_command(["--table", "2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 8 * 5 + 28 * 5
    assert "ade20k, ViT-B/16, 2000 images; cannot run: " in out
    assert eval_all_command(["--table", "2", "--markdown", "--rows", "GEM + ClearCLIP"]) == 0
    assert "| ViT-L/14 | GEM | yes | – (79.7) |" in capsys.readouterr().out
    assert eval_all_command(["--table", "2", "--latex"]) == 0
    assert eval_all_command(["--table", "2", "--csv"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_plan_without_data_says_what_is_missing_once_for_each_group(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLEARCLIP_DATA", raising=False)
    assert (
        eval_all_command(["--rows", "CLIP + ClearCLIP", "--dry-run", "--gpus", "4", "--datasets", "voc20", "ade20k"])
        == 0
    )
    first, _, second, _ = capsys.readouterr().out.splitlines()
    assert "voc20, ViT-B/16, 1449 images; cannot run: " in first and "data/VOCdevkit/VOC2012" in first
    assert "ade20k, ViT-B/16, 2000 images; cannot run: " in second and "ADEChallengeData2016" in second


def test_several_processes_without_data_start_nothing(tmp_path, monkeypatch, capfd):
    """No process, no copies of an error, and no word of a workbook that does not exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLEARCLIP_DATA", raising=False)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a process was started"))
    assert eval_all_command(["--table", "2", "--gpus", "4", "--vit", "ViT-B/16"]) == 1
    out = capfd.readouterr().out
    assert "0 done; 0 skipped; 20 failed" in out
    assert "results in" not in out
    assert out.count("failed: voc20") == 1 and "and 3 more" in out
    assert not (tmp_path / "results.xlsx").exists()


def test_the_workbook_that_exists_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert eval_all_command(["--miniature", "--limit", "1", "--rows", "CLIP"]) == 0
    assert "1 done; 0 skipped; 0 failed; results in results.xlsx" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--table 2 --protocol naclip", "--protocol naclip is not for the table 2; add --table family or backbones"),
        ("--table family --protocol naclip --miniature", r"protocol naclip is for voc21.*not for miniature"),
        ("--gpus 0", "--gpus must be at least 1, not 0"),
        ("--rebuild", "results.jsonl has no records to make a workbook from"),
        ("--explain", "results.jsonl has no records to explain"),
        ("--table backbones --miniature", "backbones has no row of the miniature's"),
        ("--rows DeepLab", "unknown row 'DeepLab'; this table has CLIP"),
    ],
)
def test_faults_are_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        eval_all_command(arguments.split())


def test_formats_show_the_users_own_methods(tmp_path, capsys):
    path = tmp_path / "results.xlsx"
    append_run(path, "voc20", 900)
    append_run(path, "voc20", 700, method__label="Neighbours", method__source="01")
    arguments = ["--table", "2", "--results", str(path), "--datasets", "voc20", "--vit", "ViT-B/16"]
    assert eval_all_command([*arguments, "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {line["system"]: line["VOC20"] for line in lines if line["VOC20"]} == {
        "CLIP + ClearCLIP": "45.0",
        "Neighbours": "35.0",
    }
    assert eval_all_command([*arguments, "--latex"]) == 0
    assert r"Neighbours$^{\ddagger}$ & 35.0 \\" in capsys.readouterr().out
    assert eval_all_command([*arguments, "--markdown", "--rows", "CLIP + ClearCLIP"]) == 0
    assert "Neighbours" not in capsys.readouterr().out, "rows are what they say"


def test_explanations(tmp_path, capsys):
    path = tmp_path / "results.xlsx"
    append_run(path, "voc21", 900, model__prob_thd=0.2)
    append_run(path, "voc20", 900)
    assert eval_all_command(["--results", str(path), "--explain", "1"]) == 0
    out = capsys.readouterr().out
    assert "model.prob_thd is 0.2, published 0.5" in out and "threshold of another row" in out
    assert eval_all_command(["--results", str(path), "--explain", "2"]) == 0
    assert "every setting is the published one" in capsys.readouterr().out


def test_nothing_from_a_record_reaches_the_terminal_as_a_command(tmp_path, capsys):
    path = tmp_path / "results.xlsx"
    append_run(path, "voc20", 700, method__label="a\x1b[2J[/b][red]", method__source="01")
    for arguments in (["--explain"], ["--csv"], ["--latex"], ["--markdown"], ["--dry-run"]):
        assert eval_all_command(["--table", "2", "--datasets", "voc20", "--results", str(path), *arguments]) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_a_workbook_is_written_again(tmp_path, capsys):
    path = tmp_path / "results.xlsx"
    append_run(path, "miniature", row=find_row("2", "CLIP", miniature=True))
    assert eval_all_command(["--results", str(path), "--rebuild"]) == 0
    assert f"{path}: 1 run" in capsys.readouterr().out
    assert path.exists() and records_path(path).exists()

"""A whole table: plans, passes that are not repeated or fail, a table that is killed, and one pass against many."""

from __future__ import annotations

import signal
from pathlib import Path

from conftest import die, rows_of

from clearclip.commands.eval_all import eval_all_command
from clearclip.commands.table_plan import has_result, plan
from clearclip.results.records import read_records
from clearclip.results.table_definitions import FAMILY, find_table

ROOT = Path(__file__).resolve().parents[2]


def test_the_family_in_one_pass(tmp_path, monkeypatch, capfd):
    groups = plan(find_table("family").select_rows(), ("voc20",), {})
    # A method on other weights is another pass.
    assert [row.name for group in groups for row in group.rows] == list(FAMILY)
    assert [{row.clip_type for row in group.rows} for group in groups] == [{"CLIP"}, {"OpenCLIP"}]
    monkeypatch.chdir(tmp_path)
    labels = [row.label for row in find_table("family", bundled=True).rows]
    assert eval_all_command(["--table", "family", "--miniature", "--limit", "2"]) == 0
    output = capfd.readouterr().out
    assert f"{len(labels)} done; 0 skipped; 0 failed" in output
    assert output.count("in no published cell: images is 2, published 200") == 1
    assert [row["method"] for row in rows_of("results.xlsx")] == labels
    assert (tmp_path / "results.xlsx").exists()


def test_a_killed_table_goes_on(tmp_path, monkeypatch, capfd):
    """Killed in its pass, started again, and again: every row is there once."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--miniature", "--limit", "8", "--rows", "CLIP", "CLIP + ClearCLIP", "SCLIP + ClearCLIP"]
    arguments += ["--cfg-options", "test_dataloader.batch_size=1"]
    killed = die(["eval_all.py", *arguments], at=5)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "results.xlsx").exists()
    assert eval_all_command(arguments) == 0
    assert "resuming: " in capfd.readouterr().out
    rows = rows_of(tmp_path / "results.xlsx")
    assert [row["method"] for row in rows] == ["CLIP", "ClearCLIP", "SCLIP + ClearCLIP"]
    assert {row["images"] for row in rows} == {8}
    assert eval_all_command(arguments) == 0
    assert "0 done; 3 skipped; 0 failed" in capfd.readouterr().out
    assert rows_of(tmp_path / "results.xlsx") == rows


def test_one_pass_equals_one_run_each(tmp_path, monkeypatch, capfd):
    """Identical confusion counts: every row of the ablation in one pass, and three of them alone."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--miniature", "--limit", "2", "--table"]
    assert eval_all_command([*arguments, "ablation"]) == 0
    assert eval_all_command([*arguments, "2"]) == 0
    together = {row["method"]: row for row in rows_of("results.xlsx")}
    assert len(together) == 6 * 4 + 2  # the others are rows of the ablation, too
    for row in ("CLIP", "MaskCLIP + ClearCLIP", "GEM"):
        assert eval_all_command([*arguments, "2", "--rows", row, "--results", "alone.xlsx", "--force"]) == 0
    assert "resuming" not in capfd.readouterr().out  # computed again, not read from the journal
    for alone in rows_of("alone.xlsx"):
        assert (alone["iou"], alone["mIoU"]) == (together[alone["method"]]["iou"], together[alone["method"]]["mIoU"])


def test_a_failing_group_does_not_stop_the_others(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("CLEARCLIP_DATA", str(tmp_path / "empty"))
    options = ["--table", "background", "--rows", "CLIP + ClearCLIP", "--cfg-options", "model.pretrained=random"]
    code = eval_all_command(["--vit", "ViT-B/16", *options])
    out = capfd.readouterr().out
    assert code == 1
    assert "0 done; 0 skipped; 3 failed" in out
    assert all(f"failed: {name}, ViT-B/16" in out for name in ("voc21", "context60", "coco_object"))
    assert rows_of("results.xlsx") == []


def test_a_result_is_known_by_its_fingerprint(tmp_path, monkeypatch, capfd):
    """A limited run, one of other settings, and one of other code are no result of the full table's row."""
    monkeypatch.chdir(tmp_path)
    only = ["--miniature", "--rows", "CLIP + ClearCLIP", "--results", "results.xlsx"]
    assert eval_all_command([*only, "--limit", "2"]) == 0
    rows = find_table("2", bundled=True).select_rows(["CLIP + ClearCLIP"])
    (group,) = plan(rows, ("miniature",), {}, 2)
    (full,) = plan(group.rows, ("miniature",), {})
    (other,) = plan(group.rows, ("miniature",), {"model.slide_stride": 64}, 2)
    (row,), records = group.rows, read_records("results.xlsx")[0]
    assert has_result(group, row, records, None)
    assert not has_result(full, row, records, None)
    assert not has_result(other, row, records, None)
    monkeypatch.setattr("clearclip.evaluation.run_facts.is_released", lambda: False)  # an edited source
    group._common = None
    assert not has_result(group, row, records, None)
    # Of other code it is computed again, whatever journals there are.
    assert eval_all_command([*only, "--limit", "2"]) == 0
    assert "1 done; 0 skipped" in capfd.readouterr().out.split("results in")[-2]
    assert len(rows_of("results.xlsx")) == 2


def test_a_record_without_its_workbook_gets_one(tmp_path, monkeypatch, capfd):
    """Killed between records and workbook, and started again: all is skipped, and the workbook is there."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--miniature", "--limit", "2", "--rows", "CLIP", "CLIP + ClearCLIP"]
    assert eval_all_command(arguments) == 0
    (tmp_path / "results.xlsx").unlink()
    (tmp_path / ".results-killed.xlsx").touch()
    assert eval_all_command(arguments) == 0
    assert "0 done; 2 skipped; 0 failed" in capfd.readouterr().out
    assert (tmp_path / "results.xlsx").is_file()
    assert not (tmp_path / ".results-killed.xlsx").exists()

"""A whole table: plans, passes that are not repeated or fail, a table that is killed, and one pass against many."""

from __future__ import annotations

import signal
from pathlib import Path

import open_clip
import pytest
from conftest import die, rows_of

from clearclip import UserError
from clearclip.commands.eval_all import main
from clearclip.commands.table_run import has_result, plan, work_dir
from clearclip.dense_models import DENSE_MODELS, PUBLISHED
from clearclip.evaluation.config import class_words, load_config
from clearclip.results.records import read_records
from clearclip.results.table_definitions import FAMILY, find_table

ROOT = Path(__file__).resolve().parents[2]


def test_plans():
    benchmarks = find_table("benchmarks")
    assert [row.vit for row in benchmarks.select_rows()] == ["ViT-B/16"]
    rows = find_table("2").select_rows(["MaskCLIP", "MaskCLIP + ClearCLIP", "SCLIP + ClearCLIP"], ["ViT-L/14"])
    first, second = plan(rows, ("voc20", "ade20k"), {})
    assert (first.dataset, second.dataset, first.images, second.images) == ("voc20", "ade20k", 1449, 2000)
    assert [row.system for row in first.rows] == ["MaskCLIP", "MaskCLIP + ClearCLIP", "SCLIP + ClearCLIP"]
    # Vanilla CLIP on VOC21 was published with a threshold of its own, which is another pass.
    systems = ["CLIP", "CLIP + ClearCLIP", "GEM", "GEM + ClearCLIP"]
    groups = plan(find_table("background").select_rows(systems, ["ViT-B/16"]), ("voc21",), {})
    assert sorted((group.settings.prob_thd, len(group.rows)) for group in groups) == [(0.2, 1), (0.5, 3)]
    # Table 2: four kinds of weights in two sizes, on five datasets.
    assert len(plan(find_table("2").rows, find_table("2").datasets, {})) == 8 * 5


def test_backbones():
    """Published weights of models that run here, CLIP and ClearCLIP each, with the normalisation of the weights."""
    rows = find_table("backbones").rows
    listed, _ = (ROOT / "docs" / "models.md").read_text().split("## Refused")
    for row in rows:
        if row.vit in DENSE_MODELS:
            assert f"`{row.vit}`" in listed and row.name == PUBLISHED
        else:
            assert f"| {row.vit} |" in listed
            assert open_clip.get_pretrained_cfg(row.vit, row.name)
    assert len({(row.vit, row.name, row.label) for row in rows}) == len(rows)
    groups = plan(rows, ("voc20",), {})
    assert {(len(group.rows), group.settings.chosen_normalization) for group in groups} == {(2, "pretrained")}
    assert len({work_dir(group) for group in groups}) == len(groups) == len(rows) / 2


def test_the_family_in_one_pass(tmp_path, monkeypatch, capfd):
    groups = plan(find_table("family").select_rows(), ("voc20",), {})
    # A method on other weights is another pass.
    assert [row.name for group in groups for row in group.rows] == list(FAMILY)
    assert [{row.clip_type for row in group.rows} for group in groups] == [{"CLIP"}, {"OpenCLIP"}]
    monkeypatch.chdir(tmp_path)
    labels = [row.label for row in find_table("family", miniature=True).rows]
    assert main(["--table", "family", "--miniature", "--limit", "2"]) == 0
    assert f"{len(labels)} done; 0 skipped; 0 failed" in capfd.readouterr().out
    assert [row["method"] for row in rows_of("results.xlsx")] == labels
    assert (tmp_path / "results.xlsx").exists()


#: What the papers of the family evaluate by: short side, window and threshold of each benchmark.
OF_NACLIP = {
    "voc21": (336, 0, 0.1), "context60": (336, 224, 0.1), "coco_object": (336, 224, 0.1), "voc20": (336, 0, 0),
    "context59": (336, 224, 0), "coco_stuff164k": (336, 224, 0), "city_scapes": (560, 224, 0), "ade20k": (336, 224, 0),
}  # fmt: skip


@pytest.mark.parametrize("protocol", ["naclip", "resclip"])
def test_protocols(protocol):
    table = find_table("family")
    rows = [row for row in table.select_rows() if row.clip_type == "CLIP"]
    for group in plan(rows, table.datasets, {}, None, protocol):
        side, crop, threshold = OF_NACLIP[group.dataset]
        settings, own = group.settings, load_config(ROOT / "config" / f"cfg_{group.dataset}.py")
        assert (settings.slide_crop, settings.slide_stride, settings.prob_thd) == (crop, 112, threshold)
        assert (settings.logit_scale, settings.post) == (40, "pamr" if protocol == "naclip" else None)
        steps = group.cfg.test_dataloader.dataset.pipeline
        assert [tuple(step["scale"]) for step in steps if step["type"] == "Resize"] == [(2048, side)]
        words, ours = class_words(group.cfg), class_words(own)
        assert len(words) == len(ours)
        more = {"voc20": 6 + 4, "voc21": 25 + 6 + 4, "coco_object": 25 + 7}.get(group.dataset, 0)
        assert len(words.words) == len(ours.words) + more
        assert group.rows == rows, "one pass for all"
    changed = plan(rows, ("voc21",), {"model.post": None, "model.prob_thd": 0.3}, None, protocol)[0].settings
    assert (changed.post, changed.prob_thd) == (None, 0.3), "what is given on the command line goes further"


def test_a_killed_table_goes_on(tmp_path, monkeypatch, capfd):
    """Killed in its pass, started again, and again: every row is there once."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--miniature", "--limit", "20", "--rows", "CLIP", "CLIP + ClearCLIP", "SCLIP + ClearCLIP"]
    arguments += ["--cfg-options", "test_dataloader.batch_size=1"]
    killed = die(["eval_all.py", *arguments], at=5)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "results.xlsx").exists()
    assert main(arguments) == 0
    assert "resuming: " in capfd.readouterr().out
    rows = rows_of(tmp_path / "results.xlsx")
    assert [row["method"] for row in rows] == ["CLIP", "ClearCLIP", "SCLIP + ClearCLIP"]
    assert {row["images"] for row in rows} == {20}
    assert main(arguments) == 0
    assert "0 done; 3 skipped; 0 failed" in capfd.readouterr().out
    assert rows_of(tmp_path / "results.xlsx") == rows


def test_one_pass_equals_one_run_each(tmp_path, monkeypatch, capfd):
    """Identical confusion counts: every row of the ablation in one pass, and three of them alone."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--miniature", "--limit", "3", "--table"]
    assert main([*arguments, "ablation"]) == 0
    assert main([*arguments, "2"]) == 0
    together = {row["method"]: row for row in rows_of("results.xlsx")}
    assert len(together) == 6 * 4 + 2  # the others are rows of the ablation, too
    for row in ("CLIP", "MaskCLIP + ClearCLIP", "GEM"):
        assert main([*arguments, "2", "--rows", row, "--results", "alone.xlsx", "--force"]) == 0
    assert "resuming" not in capfd.readouterr().out  # computed again, not read from the journal
    for alone in rows_of("alone.xlsx"):
        assert (alone["iou"], alone["mIoU"]) == (together[alone["method"]]["iou"], together[alone["method"]]["mIoU"])


def test_a_failing_group_does_not_stop_the_others(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("CLEARCLIP_DATA", str(tmp_path / "empty"))
    options = ["--table", "background", "--rows", "CLIP + ClearCLIP", "--cfg-options", "model.pretrained=random"]
    code = main(["--vit", "ViT-B/16", *options])
    out = capfd.readouterr().out
    assert code == 1
    assert "0 done; 0 skipped; 3 failed" in out
    assert all(f"failed: {name}, ViT-B/16" in out for name in ("voc21", "context60", "coco_object"))
    assert rows_of("results.xlsx") == []


def test_a_result_is_known_by_its_fingerprint(tmp_path, monkeypatch, capfd):
    """A limited run, one of other settings, and one of other code are no result of the full table's row."""
    monkeypatch.chdir(tmp_path)
    only = ["--miniature", "--rows", "CLIP + ClearCLIP", "--results", "results.xlsx"]
    assert main([*only, "--limit", "2"]) == 0
    rows = find_table("2", miniature=True).select_rows(["CLIP + ClearCLIP"])
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
    assert main([*only, "--limit", "2"]) == 0
    assert "1 done; 0 skipped" in capfd.readouterr().out.split("results in")[-2]
    assert len(rows_of("results.xlsx")) == 2


def test_rows_set_weights_and_methods(tmp_path):
    for option in ("model.clip_type=OpenCLIP", "model.method=SCLIP", "model.vit_type=ViT-L/14"):
        with pytest.raises(UserError, match=r"is what the rows of a table set"):
            main(["--miniature", "--results", str(tmp_path / "r.xlsx"), "--cfg-options", option])


def test_a_record_without_its_workbook_gets_one(tmp_path, monkeypatch, capfd):
    """Killed between records and workbook, and started again: all is skipped, and the workbook is there."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--miniature", "--limit", "2", "--rows", "CLIP", "CLIP + ClearCLIP"]
    assert main(arguments) == 0
    (tmp_path / "results.xlsx").unlink()
    (tmp_path / ".results-killed.xlsx").touch()
    assert main(arguments) == 0
    assert "0 done; 2 skipped; 0 failed" in capfd.readouterr().out
    assert (tmp_path / "results.xlsx").is_file()
    assert not (tmp_path / ".results-killed.xlsx").exists()

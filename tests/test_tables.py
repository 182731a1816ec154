"""eval_all.py: plans, passes that are not repeated or fail, a table that is killed, and one pass against many."""

from __future__ import annotations

import signal
from pathlib import Path

import open_clip
import pytest
from conftest import die, rows_of

from clearclip import LastBlock, UserError
from clearclip.commands.eval_all import main
from clearclip.commands.table_run import has_result, plan, work_dir
from clearclip.evaluation.config import class_words, load_config
from clearclip.methods import GEM, build_method
from clearclip.results.published import BENCHMARKS, FAMILY, find_protocol, select_datasets, select_rows, table_rows
from clearclip.results.tables import fill_row

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ("CLIP", "BLIP", "OpenCLIP", "MetaCLIP")


def test_rows_are_the_methods_that_they_name():
    """From spec section 1: attention, residual and FFN of each row."""
    clear = LastBlock("qq", residual=False, ffn=False)
    whole = LastBlock("qk", residual=True, ffn=True)
    wanted = {(name, added): clear if added == "yes" else whole for name in WEIGHTS for added in ("no", "yes")}
    for name, attention in (("MaskCLIP", "identity"), ("SCLIP", "qq+kk")):
        wanted[name, "no"] = LastBlock(attention, residual=True, ffn=True)
        wanted[name, "yes"] = LastBlock(attention, residual=False, ffn=False)
    wanted["GEM", "no"], wanted["GEM", "yes"] = GEM(residual=True), GEM(residual=False)
    rows = table_rows("2")
    assert len(rows) == 28
    for row in rows:
        assert build_method(row.method) == wanted[row.name, row.clearclip]
        assert row.clip_type == (row.name if row.name in WEIGHTS else "CLIP")


def test_ablation_has_every_combination():
    rows = select_rows("ablation")
    assert len({build_method(row.method) for row in rows}) == len(rows) == 6 * 2 * 2
    assert {row.vit for row in rows} == {"ViT-B/16"}


def test_plans():
    assert [row.vit for row in select_rows("benchmarks")] == ["ViT-B/16"]
    assert select_datasets("benchmarks") == BENCHMARKS
    rows = select_rows("2", False, ["MaskCLIP", "SCLIP + ClearCLIP"], ["ViT-L/14"])
    assert [(row.name, row.clearclip) for row in rows] == [("MaskCLIP", "no"), ("MaskCLIP", "yes"), ("SCLIP", "yes")]
    first, second = plan(rows, ("voc20", "ade20k"), {})
    assert (first.dataset, second.dataset, first.images, second.images) == ("voc20", "ade20k", 1449, 2000)
    assert [row.system for row in first.rows] == ["MaskCLIP", "MaskCLIP + ClearCLIP", "SCLIP + ClearCLIP"]
    # Vanilla CLIP on VOC21 was published with a threshold of its own, which is another pass.
    groups = plan(select_rows("background", False, ["CLIP", "GEM"], ["ViT-B/16"]), ("voc21",), {})
    assert sorted((group.settings.prob_thd, len(group.rows)) for group in groups) == [(0.2, 1), (0.5, 3)]
    # Table 2: four kinds of weights in two sizes, on five datasets.
    assert len(plan(table_rows("2"), select_datasets("2"), {})) == 8 * 5


def test_backbones(tmp_path, monkeypatch):
    """Published weights of models that run here, CLIP and ClearCLIP each; a run of such weights is in its cell."""
    rows = table_rows("backbones")
    ran, _ = (ROOT / "docs" / "models.md").read_text().split("## Refused")
    for row in rows:
        assert f"| {row.vit} |" in ran
        assert open_clip.get_pretrained_cfg(row.vit, row.name)
    assert len({(row.vit, row.name, row.label) for row in rows}) == len(rows)
    groups = plan(rows, ("voc20",), {})
    assert {(len(group.rows), group.settings.chosen_normalization) for group in groups} == {(2, "pretrained")}
    assert len({work_dir(group) for group in groups}) == len(groups) == len(rows) / 2
    group = groups[[row.vit for row in rows].index("ViT-B-16-SigLIP") // 2]
    protocol = find_protocol("clearclip", "voc20")
    model = {"words": protocol.words, **group.settings.facts()}
    dataset = {"name": "voc20", "count": 1449, "classes": 20, "ignore_index": 255, "reduce_zero_label": True}
    dataset |= dict(zip(("images", "masks"), (protocol.data or "a b").split(), strict=True))
    steps = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": protocol.scale, "keep_ratio": True}]
    steps += [{"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    weights = {"clip_type": None, "vit_type": None, "model": "ViT-B-16-SigLIP", "tag": "webli", "origin": "published"}
    facts = {"dataset": dataset, "input": {"pipeline": steps}, "model": model, "weights": weights, "method": {}}
    facts |= {"other": {}, "environment": {"precision": "fp32"}}
    record = {"dataset": "voc20", "method": "ClearCLIP", "facts": facts, "mIoU": 50.0}
    cells = {(row.vit, row.label): fill_row("backbones", row, ["voc20"], [record], "clearclip")[0] for row in rows}
    assert [where for where, cell in cells.items() if cell.measured] == [("ViT-B-16-SigLIP", "ClearCLIP")]
    with pytest.raises(UserError, match="backbones has no row of the miniature's"):
        main(["--table", "backbones", "--miniature"])


def test_the_family_in_one_pass(tmp_path, monkeypatch, capfd):
    (group,) = plan(select_rows("family"), ("voc20",), {})
    assert [row.name for row in group.rows] == list(FAMILY)
    monkeypatch.chdir(tmp_path)
    assert main(["--table", "family", "--miniature", "--limit", "2"]) == 0
    assert f"{len(FAMILY)} done; 0 skipped; 0 failed" in capfd.readouterr().out
    assert [row["method"] for row in rows_of("results.xlsx")] == list(FAMILY)
    assert (tmp_path / "results.xlsx").exists()


#: What the papers of the family evaluate by: short side, window and threshold of each benchmark.
OF_NACLIP = {
    "voc21": (336, 0, 0.1), "context60": (336, 224, 0.1), "coco_object": (336, 224, 0.1), "voc20": (336, 0, 0),
    "context59": (336, 224, 0), "coco_stuff164k": (336, 224, 0), "city_scapes": (560, 224, 0), "ade20k": (336, 224, 0),
}  # fmt: skip


@pytest.mark.parametrize("protocol", ["naclip", "resclip"])
def test_protocols(protocol):
    rows = select_rows("family")
    for group in plan(rows, BENCHMARKS, {}, None, protocol):
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


def test_protocols_have_their_place():
    with pytest.raises(UserError, match="--protocol naclip is for the family's table; add --table family"):
        main(["--table", "2", "--protocol", "naclip"])
    with pytest.raises(UserError, match=r"protocol naclip is for voc21.*not for miniature"):
        main(["--table", "family", "--protocol", "naclip", "--miniature"])


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


def test_a_killed_table_goes_on(tmp_path, monkeypatch, capfd):
    """Killed in its pass, started again, and again: every row is there once."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--miniature", "--limit", "20", "--rows", "CLIP", "SCLIP + ClearCLIP"]
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
    (group,) = plan(select_rows("2", True, ["CLIP + ClearCLIP"]), ("miniature",), {}, 2)
    (full,) = plan(group.rows, ("miniature",), {})
    (other,) = plan(group.rows, ("miniature",), {"model.slide_stride": 64}, 2)
    (row,), records = group.rows, rows_of("results.xlsx")
    assert has_result(group, row, records, None)
    assert not has_result(full, row, records, None)
    assert not has_result(other, row, records, None)
    monkeypatch.setattr("clearclip.evaluation.facts.code_digest", lambda: "another version of the code")
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
    arguments = ["--miniature", "--limit", "2", "--rows", "CLIP"]
    assert main(arguments) == 0
    (tmp_path / "results.xlsx").unlink()
    (tmp_path / ".results-killed.xlsx").touch()
    assert main(arguments) == 0
    assert "0 done; 2 skipped; 0 failed" in capfd.readouterr().out
    assert (tmp_path / "results.xlsx").is_file()
    assert not (tmp_path / ".results-killed.xlsx").exists()


def test_dry_run_and_markdown_run_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--table", "2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 8 * 5 + 28 * 5
    assert "ade20k, ViT-B/16, 2000 images" in out
    assert main(["--table", "2", "--markdown", "--rows", "GEM + ClearCLIP"]) == 0
    assert "| ViT-L/14 | GEM | yes | – (79.7) |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []

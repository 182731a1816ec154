"""The plan of a table: which rows share a pass, and by whose protocol."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest

from clearclip import UserError
from clearclip.commands.eval_all import eval_all_command
from clearclip.commands.table_plan import plan, work_dir
from clearclip.dense_models import DENSE_MODELS, PUBLISHED
from clearclip.evaluation.config import class_words, load_config
from clearclip.results.table_definitions import find_table

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


def test_rows_set_weights_and_methods(tmp_path):
    for option in ("model.clip_type=OpenCLIP", "model.method=SCLIP", "model.method.alpha=2", "model.vit_type=ViT-L/14"):
        with pytest.raises(UserError, match=r"is what the rows of a table set"):
            eval_all_command(["--miniature", "--results", str(tmp_path / "r.xlsx"), "--cfg-options", option])

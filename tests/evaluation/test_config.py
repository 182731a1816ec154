"""Configs as they were evaluated: what is kept beside a log is read as the same config."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colour_model import NAMES, NORMALISE, config, ours, steps, theirs

from clearclip import UserError
from clearclip.evaluation.config import config_text, load_config
from clearclip.evaluation.run import evaluate

#: The fixtures ``clip``, a model that labels pixels by their colour, and ``data``.
pytest_plugins = ["colour_model"]

CONFIGS = Path(__file__).resolve().parents[2] / "config"


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("cfg_*.py")))
def test_the_resolved_config_is_read_again(name, tmp_path):
    config = load_config(CONFIGS / f"{name}.py", {"model.logit_scale": 40, "model.pretrained": "a 'file'"})
    (tmp_path / "config.py").write_text(config_text(config), encoding="utf-8")
    again = load_config(tmp_path / "config.py")
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.model.name_path, str) and again.model.logit_scale == 40


def test_it_is_kept_and_gives_the_same_numbers(tmp_path, quick_name):
    """No file of one byte beside it, as MMEngine leaves it for a runner that is made of objects."""
    overrides = {"model.model_name": quick_name, "model.clip_type": None, "model.vit_type": None}
    (first,) = evaluate(CONFIGS / "cfg_miniature.py", tmp_path, overrides=overrides, device="cpu", limit=1)
    assert not list(tmp_path.glob("*.py"))
    (kept,) = tmp_path.glob("*/config.py")
    (second,) = evaluate(kept, tmp_path / "again", device="cpu", limit=1)
    assert first.facts == second.facts
    assert (first.scores.confusion == second.scores.confusion).all()


def test_a_config_elsewhere_is_told_where_its_base_is(tmp_path):
    """As after the installation of a wheel, whose configs lie in the package."""
    config = tmp_path / "cfg_mine.py"
    config.write_text('_base_ = "./cfg_miniature.py"\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"no cfg_miniature\.py beside it; inherit from the bundled one: ") as error:
        load_config(config)
    config.write_text(str(error.value).split("one: ")[1], encoding="utf-8")
    assert load_config(config).to_dict() == load_config(CONFIGS / "cfg_miniature.py").to_dict()
    config.write_text('_base_ = "./cfg_of_nobody.py"\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"does not fit \(FileNotFoundError"):
        load_config(config)


def test_new_style_configs(data, clip, tmp_path):
    """Pure Python, as MMEngine 0.9 has it: imported classes are types."""
    Path(tmp_path / "base.py").write_text(f"data_root = {str(data)!r}\n")
    Path(tmp_path / "cfg_lazy.py").write_text(f"""
from mmengine.config import read_base
with read_base():
    from .base import *
from mmcv.transforms import LoadImageFromFile, Resize
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmseg.models import SegDataPreProcessor
from clearclip.evaluation import ClearCLIPSegmentation
model = dict(type=ClearCLIPSegmentation, class_names={NAMES},
             data_preprocessor=dict(type=SegDataPreProcessor, **{NORMALISE}))
pipeline = [dict(type=LoadImageFromFile), dict(type=Resize, scale_factor=2.0), dict(type=LoadAnnotations),
            dict(type=PackSegInputs)]
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    type=BaseSegDataset, data_root=data_root, img_suffix=".png", metainfo=dict(classes={NAMES}), pipeline=pipeline,
    data_prefix=dict(img_path="images", seg_map_path="masks")))
""")
    cfg = load_config(tmp_path / "cfg_lazy.py")
    wanted = config(data, pipeline=steps(dict(type="Resize", scale_factor=2.0)))
    np.testing.assert_array_equal(ours(cfg, tmp_path, clip), theirs(wanted, tmp_path))

"""Configs as they were evaluated: what is kept beside a log is read as the same config."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearclip.evaluation.config import config_text, load_config
from clearclip.evaluation.run import evaluate
from clearclip.utils.errors import UserError

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

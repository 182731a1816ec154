"""No override without effect: what an evaluation does not read is refused, with the path that it reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clearclip import UserError
from clearclip.evaluation.config import load_config
from clearclip.evaluation.run import evaluate

CONFIGS = Path(__file__).resolve().parents[2] / "config"


@pytest.fixture
def own_config(tmp_path: Path) -> Path:
    """A config whose variables at the top are copied to where they are used, as MMSegmentation's own configs are."""
    file = tmp_path / "cfg_own.py"
    file.write_text(f"""
_base_ = {str(CONFIGS / "base_config.py")!r}
data_root = "one"
image_scale = (70, 50)
names = ["sky", "tree"]
steps = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=image_scale, keep_ratio=True),
         dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
model = dict(class_names=names)
test_dataloader = dict(dataset=dict(
    type="BaseSegDataset", data_root=data_root, metainfo=dict(classes=names), pipeline=steps))
""")
    return file


#: Overrides of the config above, or of a bundled one, and the path that works.
COPIED = {
    "data_root": "test_dataloader.dataset.data_root",
    "image_scale": "test_dataloader.dataset.pipeline.1.scale",
    "scale": "test_dataloader.dataset.pipeline.1.scale",
    "names": "model.class_names",
    "class_names": "model.class_names",
    "steps.1.scale": "test_dataloader.dataset.pipeline.1.scale",
    "steps.0.color_type": "test_dataloader.dataset.pipeline.0.color_type",
    "slide_crop": "model.slide_crop",
    "prob_thd": "model.prob_thd",
    "batch_size": "test_dataloader.batch_size",
    "num_workers": "test_dataloader.num_workers",
    "dataset.ignore_index": "test_dataloader.dataset.ignore_index",
    "img_suffix": "test_dataloader.dataset.img_suffix",
    "val_dataloader.batch_size": "test_dataloader.batch_size",
    "work_dir": "--workdir",
    "resume": "--resume",
    "launcher": "--launcher",
    "load_from": "model.pretrained",
    "custom_imports": "--import",
    "modle.slide_crop": "model",
}


@pytest.mark.parametrize("path", COPIED)
def test_variables_of_the_file_name_the_path_that_works(path, own_config):
    with pytest.raises(UserError, match=re.escape(path)) as refusal:
        load_config(own_config, {path: 3})
    assert re.search(rf"(give|mean) .*{re.escape(COPIED[path])}", str(refusal.value))


def test_the_named_path_works(own_config):
    """What the refusal names, taken from its own words, is read."""
    for path, value in (("data_root", "two"), ("steps.0.color_type", "grayscale"), ("slide_crop", 64)):
        with pytest.raises(UserError) as refusal:
            load_config(own_config, {path: value})
        working, text = re.search(r"give (\S+)=(\S+)", str(refusal.value)).groups()
        assert text == str(value)
        config = load_config(own_config, {working: value, "model.slide_stride": 32})
        for name in working.split("."):
            config = config[int(name)] if name.isdigit() else config[name]
        assert config == value


def test_pipelines_of_the_bundled_configs():
    with pytest.raises(UserError, match=r"give test_dataloader\.dataset\.pipeline\.0\.color_type=grayscale"):
        load_config(CONFIGS / "cfg_city_scapes.py", {"test_pipeline.0.color_type": "grayscale"})


#: Paths in sections that are read, which have no effect; and a word of the refusal.
UNREAD = {
    "model.short_side": (300, "Resize"),
    "model.train_cfg": ({"a": 1}, "trains nothing"),
    "model.tlp_grid": (9, "post=tlp"),
    "model.pretrained_tag": ("openai", "model.pretrained=FILE"),
    "randomness.sed": (1, "seed"),
    "test_evaluator.ignore_index": (0, "test_dataloader.dataset.ignore_index"),
    "test_evaluator.on_error": ("skip", "--on-error"),
    "test_evaluator.prefix": ("x", "leave it out"),
    "test_dataloader.dataset.data_prefix.img": ("x", "img_path"),
    "test_dataloader.dataset.metainfo.palete": ([], "palette"),
    "test_dataloader.dataset.test_mode": (False, "True"),
    "test_dataloader.dataset.max_refetch": (3, "never replaced"),
    "test_dataloader.dataset.pipeline.1.scal": ((1, 2), "scale"),
    "test_dataloader.persistent_workers": (True, "once"),
    "test_dataloader.datset": ({"data_root": "x"}, "dataset"),
    "test_dataloader.collate_fn": ("default_collate", "pseudo_collate"),
    "env_cfg.cudn_benchmark": (True, "cudnn_benchmark"),
    "env_cfg.dist_cfg.backend": ("gloo", "gloo"),
    "visualizer.alhpa": (0.5, "alpha"),
    "default_scope": ("mmdet", "leave it out"),
}


@pytest.mark.parametrize("path", UNREAD)
def test_paths_that_nothing_reads(path, own_config):
    value, words = UNREAD[path]
    with pytest.raises(UserError, match=rf"does not read .*{re.escape(words)}"):
        load_config(own_config, {path: value})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"model.method": "SCLIP", "model.model_type": "CLIP"}, "model.method='SCLIP'"),
        ({"model.methods": ["SCLIP"], "model.method": "CLIP"}, r"model.methods=\['SCLIP'\]"),
        (
            {"model.methods": ["SCLIP"], "model.method.type": "CLIP", "model.method.alpha": 2},
            r"model.methods=\['SCLIP'\]",
        ),
        ({"model.model_name": "miniature", "model.slide_crop": 64, "model.model_typ": "CLIP"}, "model_type"),
        ({"model.model_name": "RN50", "model.vit_type": "ViT-L/14"}, "model.model_name=RN50"),
        ({"model": {"method": "SCLIP", "ignore_residual": False}}, "model.method='SCLIP'"),
    ],
)
def test_options_of_which_one_wins(overrides, words, own_config):
    with pytest.raises(UserError, match=words):
        load_config(own_config, overrides)


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        (dict(batch_size=2), {"test_dataloader.batch_size": 3}),
        (dict(workers=0), {"test_dataloader.num_workers": 1}),
        (dict(device="cpu"), {"model.device": "cuda"}),
        (dict(methods=["CLIP"]), {"model.model_type": "SCLIP"}),
        (dict(data_root="x"), {"test_dataloader.dataset.data_root": "y"}),
    ],
)
def test_what_is_said_twice(arguments, overrides, tmp_path):
    with pytest.raises(UserError, match="say the same thing"):
        evaluate(CONFIGS / "cfg_miniature.py", tmp_path, overrides=overrides, **arguments)


@pytest.mark.parametrize("value", [None, 0, 2.0, True, "2", [2]])
def test_batch_sizes_that_are_none(value, tmp_path):
    with pytest.raises(UserError, match=rf"batch size must be a whole number .*not {re.escape(repr(value))}"):
        evaluate(CONFIGS / "cfg_miniature.py", tmp_path, overrides={"test_dataloader.batch_size": value})


def test_a_loaded_config_takes_no_overrides(tmp_path):
    """They would be passed over; those that it was loaded with may be named again."""
    config = load_config(CONFIGS / "cfg_miniature.py", {"model.prob_thd": 0.1})
    with pytest.raises(UserError, match=r"give model\.prob_thd to load_config"):
        evaluate(config, tmp_path, overrides={"model.prob_thd": 0.2})
    with pytest.raises(UserError, match="give data_root to load_config"):
        evaluate(config, tmp_path, data_root=str(tmp_path))
    with pytest.raises(UserError, match="batch size must be"):
        evaluate(config, tmp_path, overrides={"model.prob_thd": 0.1}, batch_size=0)

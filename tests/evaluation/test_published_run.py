"""What may fill a published cell, and what may not: every attack that was found."""

from __future__ import annotations

import functools
import re
import sys
import tempfile
import types
import warnings
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import cv2
import mmseg.datasets.transforms
import open_clip
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import TestLoop
from mmseg.registry import TRANSFORMS

import clearclip.evaluation.published_run as published_run
import clearclip.inference
import clearclip.model
import clearclip.weights
import clearclip.windows.readout
from clearclip import METHODS, ClearCLIP, LastBlock
from clearclip.evaluation.config import load_config
from clearclip.evaluation.config_code import has_code
from clearclip.evaluation.loaded_model import LoadedModel
from clearclip.evaluation.prepared_run import RunOptions, prepared_run
from clearclip.evaluation.published_run import not_published_because
from clearclip.methods import NACLIP
from clearclip.model_settings import ModelSettings
from clearclip.utils import installed_code

MINIATURE = "cfg_miniature.py"
BASE = Path(__file__).resolve().parents[2] / "config" / MINIATURE
PIPELINE, DATASET = "test_dataloader.dataset.pipeline", "test_dataloader.dataset"


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """The miniature as a run of its own loads it."""
    return LoadedModel.load(ModelSettings.from_options({"clip_type": "Miniature", "device": "cpu"}))


def reasons(loaded: LoadedModel | None = None, config=MINIATURE, overrides=None, methods=("ClearCLIP",), **options):
    """Why a run by the first of some methods fills no cell; nothing is segmented."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"device": "cpu", "workers": 0, "model": loaded, **options}
        cfg = load_config(config, data_root=options.pop("data_root", None))
        cfg.merge_from_dict(overrides or {})  # as a config file may have it
        with prepared_run(cfg, folder, RunOptions(methods=methods, **options)) as run:
            return not_published_because(run)[0]


# What changes nothing, however it is spelled.
ALLOWED = {
    "as it is": {},
    "collate_fn": {"test_dataloader.collate_fn": dict(type="pseudo_collate")},
    "drop_last": {"test_dataloader.drop_last": False},
    "a seed": {"randomness": dict(seed=0)},
    "local files": {f"{PIPELINE}.0.backend_args": dict(backend="local")},
    "IoUMetric beside": {"test_evaluator": [dict(type="ConfusionMetric"), dict(type="IoUMetric")]},
    "defaults": {f"{PIPELINE}.0.color_type": "color", f"{PIPELINE}.1.imdecode_backend": "pillow"},
    "scopes": {f"{PIPELINE}.1.type": "mmseg.LoadAnnotations", f"{DATASET}.type": "mmseg.MiniatureDataset"},
    "batches": {"test_dataloader.batch_size": 3},
    "its own numbers": {"model.logit_scale": 50, "model.prob_thd": 0, "model.post": None},
    "its own activation": {"model.quick_gelu": False},
    "the usual loop": {"test_cfg": dict(type="TestLoop")},
    "another way to the data": {
        f"{DATASET}.data_prefix": dict(img_path="images/val/", seg_map_path="./annotations/val")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_the_same_in_other_words_fills_its_cell(name, loaded):
    assert reasons(loaded, overrides=ALLOWED[name]) == []


def test_every_method_of_a_table_fills_its_cell(loaded):
    for method in ("CLIP", "SCLIP + ClearCLIP", "NACLIP + RCS", "PEARL", {"type": "ProxyCLIP"}):
        assert reasons(loaded, methods=[method]) == []


def test_a_model_that_is_loaded_for_the_run_fills_its_cell():
    assert reasons() == []


# A setting → a word of the reason.
SETTINGS = {
    "activation": ({"model.quick_gelu": True}, "activation"),
    "normalisation": ({"model.normalization": "pretrained"}, "activation or normalisation"),
    "threshold": ({"model.prob_thd": 0.3}, "prob_thd is 0.3"),
    "windows": ({"model.slide_stride": 64}, "slide_stride is 64"),
    "post-processing": ({"model.post": "pamr"}, "post is pamr"),
    "words": ({"model.class_names": ["sky"] * 14, "model.name_path": None}, "words"),
    "random weights": ({"model.pretrained": "random"}, "random"),
    "grey images": ({f"{PIPELINE}.0.color_type": "grayscale"}, "grayscale"),
    "ignored label": ({f"{DATASET}.ignore_index": 3}, "ignore_index"),
    "reduced masks": ({f"{DATASET}.reduce_zero_label": True}, "reduce_zero_label"),
    "another order of images": ({"test_dataloader.sampler.shuffle": True}, "sampler|how the evaluation runs"),
    "incomplete batches left out": ({"test_dataloader.drop_last": True}, "how the evaluation runs"),
    "a step in the pipeline": (
        {PIPELINE: [dict(type="LoadImageFromFile"), dict(type="RandomFlip", prob=1.0),
                    dict(type="LoadAnnotations"), dict(type="PackSegInputs")]}, "RandomFlip",
    ),
    "a hook": ({"custom_hooks": [dict(type="EMAHook")]}, "custom_hooks"),
    "deterministic": ({"randomness": dict(seed=1, deterministic=True)}, "deterministic"),
    "preprocessor": (
        {"model.data_preprocessor": dict(type="ImagePreprocessor", mean=[0] * 3, std=[1] * 3)}, "preprocessor",
    ),
}  # fmt: skip

OF_WEIGHTS = {"activation", "normalisation", "random weights"}


@pytest.mark.parametrize("name", SETTINGS)
def test_another_setting_is_named(name, loaded):
    overrides, words = SETTINGS[name]
    found = reasons(None if name in OF_WEIGHTS else loaded, overrides=overrides)
    assert any(re.search(words, reason) for reason in found), found


def test_fewer_images_and_other_precision(loaded):
    assert reasons(loaded, limit=3) == ["images is 3, published 200"]
    assert any("bf16" in reason for reason in reasons(overrides={"model.precision": "bf16"}))


@contextmanager
def registered(registry, name, kind):
    """A class in a registry, by the name of another one."""
    before = registry.module_dict.get(name)
    registry.module_dict[name] = type(name, (kind,), {"__module__": kind.__module__})
    try:
        yield
    finally:
        if before is None:
            del registry.module_dict[name]
        else:
            registry.module_dict[name] = before


class Harmless(Hook):
    """Does nothing; nobody can know that."""


# A class of one's own in the place of a known one: registry, name, class, config.
REGISTRIES = {
    "loop": (LOOPS, "TestLoop", TestLoop, {"test_cfg": dict(type="TestLoop")}),
    "hook": (HOOKS, "IterTimerHook", Harmless, {"custom_hooks": [dict(type="IterTimerHook")]}),
    "transform": (TRANSFORMS, "PackSegInputs", mmseg.datasets.transforms.PackSegInputs, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ["loop", "hook", "transform"])
def test_a_known_name_is_not_a_known_class(name, loaded):
    registry, known, kind, overrides = REGISTRIES[name]
    with registered(registry, known, kind):
        assert any(
            "neither ClearCLIP's nor MMSegmentation's" in reason for reason in reasons(loaded, overrides=overrides)
        )


def replacement(*args, **kwargs):
    """In the place of a function; never called."""


# Where something is patched, its name, and what is put there.
PATCHES = {
    "a function that labels": (clearclip.windows.readout, "label_map", replacement),
    "a constant": (clearclip.weights, "OPENAI_MEAN", (1.0, 2.0, 3.0)),
    "a method of the model": (clearclip.inference.WindowedInference, "predict", replacement),
    "a method of a method": (LastBlock, "gather", replacement),
    "MMSegmentation": (mmseg.datasets.transforms.LoadAnnotations, "_load_seg_map", replacement),
    "OpenCLIP": (open_clip.tokenizer.SimpleTokenizer, "encode", replacement),
    "PyTorch": (torch.nn.functional, "softmax", replacement),
    "OpenCV": (cv2, "resize", replacement),
    "by a partial": (clearclip.windows.readout, "label_map", functools.partial(replacement, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", PATCHES)
def test_replaced_code_is_noticed(name, loaded):
    place, attribute, value = PATCHES[name]
    if not hasattr(place, attribute):
        attribute = next(known for known, member in vars(place).items() if isinstance(member, types.FunctionType))
    with mock.patch.object(place, attribute, value):
        found = list(published_run._program())
    assert any(attribute in reason for reason in found), found
    assert list(published_run._program()) == []


def test_hooks_and_functions_on_the_model_are_noticed(loaded):
    handle = loaded.model.image_encoder.register_forward_hook(lambda *_: None)
    assert any("hooks of PyTorch" in reason for reason in reasons(loaded))
    handle.remove()
    loaded.model.predict = replacement
    assert any("a function of" in reason for reason in reasons(loaded))
    del loaded.model.predict
    assert reasons(loaded) == []


def test_a_model_that_was_changed_or_is_a_strangers(loaded):
    """In memory or on the disk: what counts is what is in memory when the run begins."""
    weight = next(loaded.model.image_encoder.parameters())
    weight.data.flatten()[0] += 1e-3  # a view of the data counts no version
    assert any("changed after its weights were read" in reason for reason in reasons(loaded))
    weight.data.flatten()[0] -= 1e-3
    fresh = LoadedModel.load(loaded.settings)
    assert reasons(fresh) == []
    stranger = ClearCLIP.from_pretrained("miniature", device="cpu")
    assert any("in memory" in reason for reason in reasons(stranger))


def test_a_method_under_a_known_name(loaded, monkeypatch):
    class Own(LastBlock):
        """A class of one's own."""

    monkeypatch.setitem(METHODS, "ClearCLIP", Own)
    assert reasons(loaded, methods=["CLIP"]) != []
    monkeypatch.setitem(METHODS, "ClearCLIP", NACLIP)
    assert reasons(loaded, methods=["CLIP"]) != []


@pytest.mark.parametrize("folder", ["", "site-packages"])
def test_own_code_beside_ours(folder, loaded, tmp_path):
    """In a file with the name of a standard module, or in a folder of packages."""
    file = tmp_path / folder / "trace.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text("pass\n")
    assert reasons(loaded, imports=[file]) == ["own code was imported: trace.py"]


# Lines of a config → whether they are data.
LINES = {
    "model = dict(slide_stride=32)": True,
    "FACTOR = 2\nmodel = {'slide_stride': 16 * FACTOR}": True,
    "data = [i for i in (1, 2)]": True,
    "import os": False,
    "from pathlib import Path": False,
    "x = __import__('os')": False,
    "x = open('f').read()": False,
    "dict = exec\ndict('1')": False,
    "def f():\n    pass": False,
    "class A:\n    pass": False,
    "f = lambda: 1": False,
    "for i in (1, 2):\n    pass": False,
    "custom_imports = dict(imports=['json'])": True,  # which is a reason of its own
}


@pytest.mark.parametrize("line", LINES)
def test_a_config_is_data_or_code(line, tmp_path):
    (tmp_path / "config.py").write_text(line + "\n")
    assert has_code(tmp_path / "config.py") is not LINES[line]


def test_configs_of_ones_own(loaded, tmp_path):
    """One that inherits the bundled config is as good as it, until it runs code."""
    config = tmp_path / "cfg_mine.py"
    config.write_text(f"_base_ = {str(BASE)!r}\nmodel = dict(slide_stride=32)\n")
    assert reasons(loaded, config=config) == []
    config.write_text(config.read_text() + "import json\n")
    assert any("cfg_mine.py has code" in reason for reason in reasons(loaded, config=config))
    (tmp_path / "patches_of_a_test.py").write_text("")
    sys.path.insert(0, str(tmp_path))
    try:
        config.write_text(f"_base_ = {str(BASE)!r}\ncustom_imports = dict(imports=['patches_of_a_test'])\n")
        assert any("imported by the config" in reason for reason in reasons(loaded, config=config))
    finally:
        sys.path.remove(str(tmp_path))


def test_another_dataset(loaded):
    assert any("no published protocol" in reason for reason in reasons(loaded, overrides={"dataset_name": "mine"}))
    assert reasons(loaded, overrides={"dataset_name": "voc20"}) != []


def test_packages(monkeypatch):
    """Versions that nobody tested, files that pip did not install, two builds of OpenCV, an edited source."""
    versions = dict(installed_code.package_versions())
    changes = {
        "pillow": "9.0", "scipy": "1.0", "tokenizers": "0.1", "opencv-contrib-python": "4.0", "onedl-mmengine": "0.1",
        "onedl-mmcv": "2.0", "onedl-mmsegmentation": "1.0", "torch": "1.0",
    }  # fmt: skip
    for name, version in changes.items():
        monkeypatch.setattr(published_run, "package_versions", lambda n=name, v=version: {**versions, n: v})
        assert any(reason.startswith(f"{name} {version}") for reason in published_run._program())
    monkeypatch.setattr(published_run, "package_versions", lambda: versions)
    monkeypatch.setattr(published_run, "changed_packages", lambda: ("mmcv-lite",))
    assert any("mmcv-lite are not those" in reason for reason in published_run._program())
    monkeypatch.setattr(published_run, "is_released", lambda: False)
    assert any("source of ClearCLIP" in reason for reason in published_run._program())

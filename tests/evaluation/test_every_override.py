"""Random overrides of every section of the bundled configs: the fingerprint sees each, or it is refused.

``CLEARCLIP_OVERRIDES=30 pytest tests/evaluation/test_every_override.py`` draws 30 for each section of every config.
"""

from __future__ import annotations

import copy
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from layouts import FURTHER, LAYOUTS, make_layout
from mmengine.config import Config

from clearclip import UserError
from clearclip.evaluation import overrides as overrides_module
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import explaining_errors, load_config, model_settings
from clearclip.evaluation.run_facts import method_facts, run_facts
from clearclip.methods import build_method
from clearclip.utils.devices import choose_device, choose_precision
from clearclip.utils.fingerprint import digest
from clearclip.utils.plain_data import plain_data

CONFIGS = Path(__file__).resolve().parents[2] / "config"
COUNT = int(os.environ.get("CLEARCLIP_OVERRIDES", "3"))
#: All where many are drawn; else one of each kind: background and threshold, reduced labels, mapped ids, colours.
NAMES = ["miniature", *LAYOUTS, *FURTHER] if COUNT >= 30 else ["miniature", "voc21", "ade20k"]
#: What has an effect that is no number: speed, logs and pictures, and the check of the number of images.
OTHER_EFFECTS = (
    "model.device", "model.window_batch", "model.cached", "model.keep_logits", "test_dataloader.batch_size",
    "test_dataloader.num_workers", "test_dataloader.pin_memory", "test_dataloader.prefetch_factor",
    "test_dataloader.timeout", "test_dataloader.sampler", "test_dataloader.dataset.metainfo.palette",
    "test_dataloader.dataset.lazy_init", "default_hooks", "env_cfg.mp_cfg", "env_cfg.resource_limit", "visualizer",
    "log_level", "expected_images",
)  # fmt: skip
#: Values for options that are None.
SAMPLES = {
    "model.method": "SCLIP",
    "model.model_name": "RN50", "model.pretrained": "laion2b_s34b_b88k", "model.quick_gelu": False,
    "model.post": "pamr",
    "model.normalization": "pretrained", "model.pretrained_tag": "openai", "model.methods": ["GEM"],
    "model.class_names": ["a", "b"], "model.clip_type": "OpenCLIP", "model.vit_type": "ViT-L/14",
    "test_dataloader.dataset.indices": [1], "test_dataloader.dataset.ann_file": "none.txt",
    "test_dataloader.dataset.metainfo": {"classes": ["a", "b"]}, "test_dataloader.dataset.backend_args": {"a": 1},
}  # fmt: skip


@pytest.fixture
def parsed_once(monkeypatch):
    """A config's file is executed once for all draws: reading it takes most of the time otherwise."""
    read = cache(Config.fromfile)
    monkeypatch.setattr(Config, "fromfile", lambda path: copy.deepcopy(read(path)))


def fingerprint(config: Path, root: str | None, overrides: dict[str, Any]) -> str:
    """What a run of the first image would be known by, with the weights by their names."""
    cfg = load_config(config, overrides, root)
    with explaining_errors("the config"):
        dataset = CheckedDataset(cfg.test_dataloader.dataset, 1)
        settings = model_settings(cfg)
        device = choose_device(settings.device)
        facts = run_facts(cfg, dataset, settings, device, choose_precision(settings.precision, device))
        methods = [build_method(one) for one in cfg.model.get("methods") or [settings.chosen_method]]
        facts["methods"] = [method_facts(method) for method in methods]
        facts["weights"] = plain_data(vars(settings.chosen_weights))
    return digest(facts)


def changed(rng: random.Random, path: str, value: Any) -> Any:
    """A value of the same kind that is not the one there."""
    if path in SAMPLES and value in (None, "", {}):
        return SAMPLES[path]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((1, 2, 32))
    if isinstance(value, float):
        return value / 2 if value else 0.25
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, tuple) and all(isinstance(number, int) for number in value):
        return tuple(number + 8 for number in value)
    return "something else"


def draw(rng: random.Random, section: str, values: dict[str, Any]) -> tuple[str, Any]:
    """An override of a section: of a value that is there, of an option that is not, or of a name that means nothing."""
    kind = rng.random()
    if kind < 0.6:
        leaves = [path for path, value in values.items() if path.startswith(section) and not isinstance(value, dict)]
        path = rng.choice(leaves or [section])
        return path, changed(rng, path, values.get(path))
    options = [path for path in overrides_module._paths_by_class() if path.startswith(f"{section}.")]
    if kind < 0.85 and options:
        path = rng.choice(options)
        return path, changed(rng, path, values.get(path))
    path = rng.choice([path for path in values if path.startswith(section)] or [section])
    return f"{path}.nothing" if rng.random() < 0.5 else f"{path}_", 1


@pytest.mark.parametrize("name", NAMES)
def test_every_override_has_an_effect_or_is_refused(name, tmp_path, monkeypatch, parsed_once):
    monkeypatch.delenv("CLEARCLIP_DATA", raising=False)
    config, rng = CONFIGS / f"cfg_{name}.py", random.Random(name)
    root = None if name == "miniature" else str(make_layout(name, tmp_path, images=2)["data_root"])
    before = fingerprint(config, root, {})
    loaded = load_config(config, None, root).to_dict()
    values = {
        path: value for section in loaded for path, value in overrides_module._paths_below(section, loaded[section])
    }
    refused = 0
    for section in (*loaded, *overrides_module.SECTIONS):
        for _ in range(COUNT):
            path, value = draw(rng, section, values)
            if path.startswith(OTHER_EFFECTS) or path.endswith("data_root"):
                continue
            try:
                after = fingerprint(config, root, {path: value})
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
                continue
            assert after != before, f"{path}={value!r} has no effect"
    assert refused

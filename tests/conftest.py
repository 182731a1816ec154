"""Shared fixtures: a tiny CLIP with random weights, in the layout that open_clip's local-dir: reads."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import clearclip.evaluation  # noqa: F401  (mmcv-lite lets mmseg be imported through it only)
from clearclip.utils.installed_code import NUMERICS, source_digest

# Modules with fixtures are imported by the tests before pytest registers them.
pytest.register_assert_rewrite("colour_model", "tiny_reference")

# What was imported stays. MMEngine collects garbage whenever it makes a dataset, which would look at all of it.
gc.freeze()

# This source counts as a released one, so that its runs fill cells.
NUMERICS["released"].append(source_digest())

TINY = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 6, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session", autouse=True)
def text_cache(tmp_path_factory: pytest.TempPathFactory):
    """Tests keep their text features to themselves."""
    os.environ["CLEARCLIP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("CLEARCLIP_DATA", None)


# Patches of 16 and two blocks: for tests of what happens around the model.
QUICK = {
    **TINY,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
}


def load_tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    path = Path(__file__).parents[1] / "tools" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def environment(**variables: str) -> dict[str, str]:
    """That of a process that a test starts: one thread, and modules of the tests can be imported."""
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests / "site"), str(tests), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **variables}


def die(command: list[str], at: int) -> subprocess.CompletedProcess:
    """Run a script of the repository until it kills itself before its batch number ``at``."""
    root = Path(__file__).parents[1]
    start = "import runpy, sys, sudden_death; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    line = [sys.executable, "-c", start, str(root / command[0]), *command[1:]]
    return subprocess.run(line, env=environment(DIE_AT=str(at)), capture_output=True, text=True)


def rows_of(results: str | Path) -> list[dict]:
    """The records beside a workbook by their keys in the file, none of them with a remark."""
    from clearclip.results.records import read_records

    records, remarks = read_records(results)
    assert not remarks
    return [record.to_json() for record in records]


def make_model(folder: Path, config: dict) -> Path:
    """Fill ``folder`` with a model whose attention is far from uniform and whose residual matters."""
    import open_clip

    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**config)
    for name, weight in model.named_parameters():
        if name == "logit_scale":
            continue
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=2 * weight.shape[-1] ** -0.5)
        elif "ln_" in name and name.endswith("weight"):
            torch.nn.init.normal_(weight, mean=1, std=0.2)
        else:
            torch.nn.init.normal_(weight, std=0.2)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model: patches of 8, six blocks."""
    return make_model(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="session")
def tiny_name(tiny_folder: Path) -> str:
    """The tiny model's name for ``open_clip.create_model``."""
    return f"local-dir:{tiny_folder}"


@pytest.fixture(scope="session")
def quick_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that is quicker still, see QUICK."""
    return make_model(tmp_path_factory.mktemp("quick"), QUICK)


@pytest.fixture(scope="session")
def quick_name(quick_folder: Path) -> str:
    """Its name for ``open_clip.create_model``."""
    return f"local-dir:{quick_folder}"


@pytest.fixture(scope="session")
def quick_state(quick_folder: Path) -> dict[str, torch.Tensor]:
    """The weights of ``quick_folder`` by their names."""
    return torch.load(quick_folder / "open_clip_pytorch_model.bin", weights_only=True)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch):
    """Whatever asks the hub fails the test; those that may have a server of their own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def any_precision(monkeypatch: pytest.MonkeyPatch):
    """Also those that this CPU computes slowly."""
    monkeypatch.setattr("clearclip.utils.devices.possible_precisions", lambda _: ["fp32", "fp16", "bf16"])

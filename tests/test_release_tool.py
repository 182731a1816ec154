"""tools/compare_with_release.py on a stand-in for the release, which computes as ours does except where told."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from conftest import load_tool
from tiny import TINY, named_weights

from clearclip.commands.command_line import run_command

# The release's constructor; with residual and FFN its result is another one.
STAND_IN = """
import functools
from open_clip import create_model, get_tokenizer
from clearclip import ClearCLIP, ModelSettings
from clearclip.backbones.open_clip_tower import ImageEncoder
from clearclip.evaluation import ClearCLIPSegmentation as Ours
from clearclip.text import TextEncoder

@functools.cache
def model():
    net = create_model("ViT-B/16", pretrained="openai", precision="fp16")
    text = TextEncoder(net, get_tokenizer("ViT-B-16"), dim=net.visual.output_dim, cached=False)
    mean, std = (122.771, 116.746, 104.094), (68.501, 66.632, 70.323)
    return ClearCLIP(ImageEncoder(net.visual), text, ModelSettings(), mean=mean, std=std)

class ClearCLIPSegmentation(Ours):
    def __init__(self, clip_type, vit_type, model_type, name_path, device, ignore_residual, **windows):
        super().__init__(name_path, model=model(), model_type=model_type, ignore_residual=ignore_residual,
            logit_scale=50 if ignore_residual else 40, keep_logits=True, **windows)
"""


@pytest.fixture(scope="module")
def tool():
    return load_tool("compare_with_release")


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "clearclip_segmentor.py").write_text(STAND_IN)
    return tmp_path / "release"


def run(tool, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["compare_with_release.py", *map(str, arguments)])
    return run_command(tool.main)


def test_agreement_and_difference(tool, release, monkeypatch, capfd):
    geometries = tool.geometries
    monkeypatch.setattr(tool, "geometries", lambda side: geometries(side)[::4])
    monkeypatch.setattr(tool, "METHODS", ("ClearCLIP",))
    assert run(tool, monkeypatch, release, "--weights", "tiny", "--csv", "table.csv") == 1
    rows = list(csv.DictReader(Path("table.csv").read_text().splitlines()))
    assert {row["residual_and_ffn"]: row["agrees"] for row in rows} == {"kept": "False", "dropped": "True"}
    assert [row["case"] for row in rows] == 2 * ["whole", "padded", "single words"]
    for row in rows:
        assert (float(row["largest_difference"]) < 1e-4) == (row["agrees"] == "True")
    assert "3 of 6 cases agree" in capfd.readouterr().out


@pytest.mark.parametrize(
    "code, told",
    [
        ("import a_package_of_another_time", "a_package_of_another_time"),
        ("class ClearCLIPSegmentation:\n    def __init__(self, name_path): pass", "__init__()"),
    ],
)
def test_a_release_of_another_commit(tool, release, monkeypatch, capfd, code, told):
    (release / "clearclip_segmentor.py").write_text(code)
    assert run(tool, monkeypatch, release, "--weights", "tiny") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: the release in {release} cannot be run: ") and told in line
    assert not Path("outputs").exists()


def test_weights_of_another_architecture(tool, release, monkeypatch, capfd):
    narrow = {**TINY, "text_cfg": {**TINY["text_cfg"], "width": 32, "heads": 2}}
    Path("narrow.json").write_text(json.dumps(narrow))
    open_clip.add_model_config(Path("narrow.json"))
    torch.save(named_weights(open_clip.model.CLIP(**TINY).state_dict()), "weights.pt")
    assert run(tool, monkeypatch, release, "--weights", "weights.pt", "--model", "narrow") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: narrow (weights.pt) does not fit") and "belong together" in line

"""Models of the families outside OpenCLIP by name and by folder, from the command line to the workbook."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import rows_of
from dense_folders import dinotxt_folder, radio_folder, talk2dino_folder, tips_folder
from PIL import Image

from clearclip import ClearCLIP, UserError
from clearclip.commands.demo import demo_command as demo
from clearclip.commands.eval import eval_command as evaluate
from clearclip.commands.eval_all import eval_all_command as eval_all
from clearclip.dense_models import DENSE_MODELS, dense_files, find_family
from clearclip.evaluation.weight_facts import weights_facts
from clearclip.model_settings import ModelSettings
from clearclip.weights import choose_weights, find_checkpoint

#: A name of each family, and what makes its folder.
MAKERS = {
    "tipsv2-b14": tips_folder,
    "dinotxt-l16": dinotxt_folder,
    "c-radio-v3-b": radio_folder,
    "talk2dino-b14": talk2dino_folder,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder of each family, by the name of a model."""
    pytest.importorskip("sentencepiece")
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("name", MAKERS)
def test_a_name_with_its_folder_and_the_folder_alone_are_one(name, folders):
    options = dict(device="cpu", cached=False, slide_crop=112, slide_stride=112, short_side=112, templates="one")
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    by_name = ClearCLIP.from_pretrained(name, folders[name], **options).segment(image, ["sky", "tree"])
    by_folder = ClearCLIP.from_pretrained(folders[name], **options).segment(image, ["sky", "tree"])
    assert np.array_equal(by_name.labels, by_folder.labels)
    assert by_name.labels.shape == (120, 160)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", MAKERS)
def test_half_precision(name, precision, folders, monkeypatch):
    monkeypatch.setattr("clearclip.utils.devices.possible_precisions", lambda _: ["fp32", "fp16", "bf16"])
    models = [
        ClearCLIP.from_pretrained(folders[name], device="cpu", cached=False, templates="one", precision=kind)
        for kind in ("fp32", precision)
    ]
    image = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    exact, half = (model.encode(image, [model.method])[0].float() for model in models)
    assert torch.nn.functional.cosine_similarity(exact, half, dim=-1).min() > 0.99
    words = [model.encode_text(["sky"]).features for model in models]
    assert torch.nn.functional.cosine_similarity(*words).item() > 0.99


@pytest.mark.parametrize("name", MAKERS)
def test_all_files_are_in_the_fingerprint(name, folders, tmp_path):
    settings = ModelSettings(model_name=name, pretrained=str(folders[name]))
    facts = weights_facts(settings)
    assert facts["origin"] == "file"
    for part, path in dense_files(name, str(folders[name])).items():
        content = path.read_bytes()
        try:
            path.write_bytes(content + b" ")
            assert weights_facts(settings)["bytes"] != facts["bytes"], part
        finally:
            path.write_bytes(content)


def test_what_is_published_is_fetched_from_where_it_is(monkeypatch, tmp_path):
    """Nothing is asked for that is not needed; the order of requests does not matter."""
    asked = []
    monkeypatch.setattr(
        "clearclip.dense_models.fetch", lambda *names, remedy: asked.append("/".join(names)) or tmp_path
    )
    monkeypatch.setattr("clearclip.dense_models.fetch_url", lambda url, remedy: asked.append(url) or tmp_path)
    expected = {
        "tipsv2-l14": {"google/tipsv2-l14/model.safetensors", "google/tipsv2-l14/tokenizer.model"},
        "c-radio-v3-l": {"nvidia/C-RADIOv3-L/c-radio-v3_l_half.pth.tar", "nvidia/C-RADIOv3-L/model.safetensors",
                         "google/siglip2-so400m-patch16-naflex/model.safetensors"},
        "c-radio-v4-h": {"nvidia/C-RADIOv4-H/c-radio_v4-h_half.pth.tar",
                         "google/siglip2-giant-opt-patch16-384/model.safetensors"},
        "talk2dino-l14": {"timm/vit_large_patch14_reg4_dinov2.lvd142m/model.safetensors",
                          "https://raw.githubusercontent.com/lorebianchi98/Talk2DINO/main/weights/vitl_mlp_infonce.pth"},
    }  # fmt: skip
    for name, files in expected.items():
        asked.clear()
        weights = choose_weights(model_name=name)
        assert (weights.pretrained, weights.tag) == ("published", "published")
        find_checkpoint(weights)
        assert files <= set(asked)
    asked.clear()
    assert dense_files("hf-hub:google/tipsv2-b14", None) and "google/tipsv2-b14/model.safetensors" in asked


@pytest.mark.parametrize("name", DENSE_MODELS)
def test_without_a_network_the_remedy_is_one_line(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("clearclip.utils.hub.urlopen", lambda *_, **__: pytest.fail("asked"), raising=False)
    monkeypatch.setattr("clearclip.utils.hub._cached_only", type("Cached", (), {"get": staticmethod(lambda: True)}))
    with pytest.raises(UserError, match="and give their folder as pretrained") as error:
        find_checkpoint(choose_weights(model_name=name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(model_name="tipsv2-b14", pretrained="random"), "takes the sizes of its towers from its files"),
        (dict(model_name="tipsv2-b14", quick_gelu=True), "has one activation only"),
        (dict(model_name="tipsv2-b15"), r"unknown model 'tipsv2-b15'.*tipsv2-b14"),
        (dict(model_name="tipsv2-b14", pretrained="nowhere"), "nowhere is no folder; download model.safetensors"),
    ],
)
def test_what_cannot_be_meant_is_one_line(options, message):
    with pytest.raises(UserError, match=message):
        find_checkpoint(choose_weights(**options))


def test_every_model_is_in_the_page():
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in DENSE_MODELS if f"`{name}`" not in page] == []
    section = (Path(__file__).parents[1] / "tools" / "dense_page.md").read_text(encoding="utf-8")
    assert section.strip() in page  # tools/zoo.py writes it there


def test_other_folders_are_of_no_family(tmp_path):
    (tmp_path / "checkpoint.pth.tar").touch()
    (tmp_path / "config.json").write_text("{}")
    assert find_family(f"local-dir:{tmp_path}") is None
    assert find_family("ViT-B-16") is None


@pytest.mark.parametrize("name", MAKERS)
def test_from_a_picture_to_a_cell(name, folders, tmp_path, monkeypatch):
    """demo.py, and an evaluation of two of the miniature's scenes."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    sizes = ["--slide-crop", "112", "--slide-stride", "112", "--templates", "one", "--device", "cpu"]
    arguments = [str(tmp_path / "a.png"), "--classes", "sky, tree", "--model", name, "--pretrained", str(folders[name])]
    assert demo([*arguments, *sizes, "--out", str(out)]) == 0
    assert json.loads((out / "a_labels.json").read_text())["width"] == 90
    options = ["model.clip_type=None", "model.vit_type=None", f"model.model_name={name}", "model.templates=one",
               f"model.pretrained={folders[name]}", "model.device=cpu"]  # fmt: skip
    results = tmp_path / "results.xlsx"
    common = ["--config", "cfg_miniature.py", "--limit", "2", "--workers", "0", "--methods", "CLIP", "ClearCLIP"]
    common += ["--results", str(results), "--work-dir", str(tmp_path / "work")]
    assert evaluate([*common, "--cfg-options", *options]) == 0
    assert [row["facts"]["weights"]["model"] for row in rows_of(results)] == [name, name]


def test_the_table_of_backbones_has_them(folders, tmp_path, capsys):
    for name, folder in folders.items():
        arguments = ["--table", "backbones", "--vit", name, "--dry-run", "--results", str(tmp_path / "results.xlsx")]
        eval_all([*arguments, "--cfg-options", f"model.pretrained={folder}"])
        assert name in capsys.readouterr().out

"""Models in folders and files of OpenCLIP's layout: which weights, which grid, which precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import QUICK
from model_files import assert_same, features, load, shard
from open_clip.model import resize_pos_embed
from safetensors.torch import save_file

from clearclip import UserError
from clearclip.backbones.clip_loading import _normalization
from clearclip.weights import Weights, choose_weights, find_checkpoint

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.mark.parametrize("name", ["weights.pt", "model.pth", "epoch_32.safetensors", "open_clip_pytorch_model.bin"])
def test_weights_of_any_name_in_a_folder(name, quick_folder, quick_state, tmp_path):
    shutil.copy(quick_folder / "open_clip_config.json", tmp_path)
    (save_file if name.endswith("safetensors") else torch.save)(quick_state, tmp_path / name)
    torch.save({"step": torch.tensor(1)}, tmp_path / "optimizer.pt")
    assert find_checkpoint(Weights(f"local-dir:{tmp_path}", None)) == [tmp_path / name]
    assert_same(load(tmp_path), quick_folder)
    assert_same(load(f"local-dir:{quick_folder}", tmp_path), quick_folder)


def test_which_of_several_weights_must_be_said(quick_folder, tmp_path):
    shutil.copy(quick_folder / "open_clip_config.json", tmp_path)
    with pytest.raises(UserError, match=r"It has none \(open_clip_model.safetensors.*as pretrained"):
        load(tmp_path)
    for name in ("a.pt", "b.pt"):
        shutil.copy(quick_folder / "open_clip_pytorch_model.bin", tmp_path / name)
    with pytest.raises(UserError, match=r"It has several \(a.pt, b.pt\)"):
        load(tmp_path)
    assert_same(load(tmp_path, tmp_path / "b.pt"), quick_folder)


def test_shards(quick_folder, quick_state, tmp_path):
    shutil.copy(quick_folder / "open_clip_config.json", tmp_path)
    shard(quick_state, tmp_path, "open_clip_model.safetensors")
    assert_same(load(tmp_path), quick_folder)
    assert_same(load(quick_folder, tmp_path / "open_clip_model.safetensors.index.json"), quick_folder)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks the shards model-00002-of-00002\.safetensors"):
        load(tmp_path)
    index = tmp_path / "open_clip_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"visual.proj": "../../secret.safetensors"}}))
    with pytest.raises(UserError, match="does not list files beside it"):
        load(tmp_path)


def test_a_file_or_folder_in_the_current_folder_is_no_tag_or_model(quick_folder, quick_state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(quick_state, "openai")
    shutil.copytree(quick_folder, "ViT-B-16")
    with pytest.raises(UserError, match="cannot be fetched"):
        find_checkpoint(choose_weights("CLIP", pretrained="openai"))
    assert choose_weights(model_name="ViT-B-16", pretrained="./openai", quick_gelu=True).tag is None
    assert find_checkpoint(choose_weights(model_name="ViT-B-16", pretrained="./openai", quick_gelu=True)) == [
        Path("openai")
    ]
    assert choose_weights(model_name="ViT-B/16", pretrained="openai").model_name == "ViT-B-16"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_cfg": {"hf_tokenizer_name": "/etc/x"}}, "/etc/x cannot be fetched"),
        ({"text_cfg": {"hf_tokenizer_name": ["a"]}}, "cannot be fetched"),
        ({"text_cfg": {"hf_model_name": "some/bert"}}, "some/bert cannot be fetched"),
        ({"text_cfg": {"hf_model_name": "a/b/c"}}, "'a/b/c' .* no other path is read"),
        ({"text_cfg": {"hf_model_name": "/etc"}}, "'/etc' .* no other path is read"),
        ({"text_cfg": {"hf_model_name": ".."}}, r"'\.\.' .* no other path is read"),
        ({"text_cfg": {"hf_model_name": "../other"}}, "'../other' .* no other path is read"),
        ({"text_cfg": {"hf_model_name": "~"}}, "'~' .* no other path is read"),
        ({"text_cfg": {"hf_model_name": "\0"}}, "no other path is read"),
        ({"text_cfg": {"tokenizer_kwargs": {"clean": "wildly"}}}, "the tokenizer .* cannot be loaded"),
        ({"text_cfg": {"context_length": "long"}}, "cannot be loaded|makes no model"),
        ({"text_cfg": {"heads": 3}}, "makes no model"),
        ({"vision_cfg": {"patch_size": 0}}, "makes no model"),
        ({"vision_cfg": {"timm_model_name": "/etc/passwd"}}, "makes no model"),
        ({"mean": "grey"}, "mean and std .* are no three numbers"),
        ({"std": [0, 0, 0]}, "mean and std .* are no three numbers"),
    ],
)
def test_odd_configurations_are_one_line(change, words, quick_folder, tmp_path):
    described = json.loads((quick_folder / "open_clip_config.json").read_text())
    for part, values in change.items():
        if part in ("mean", "std"):
            described["preprocess_cfg"] = change
        else:
            described["model_cfg"][part] |= values
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=words):
        load(tmp_path, "random")


def test_a_checkpoint_keeps_its_own_grid(quick_folder, quick_state, tmp_path):
    """Positions of an 8 × 8 grid for a model of 4 × 4 are not resampled."""
    grown = {**quick_state, "visual.positional_embedding": torch.randn(65, 32)}
    torch.save(grown, tmp_path / "a.pt")
    model = load(f"local-dir:{quick_folder}", tmp_path / "a.pt")
    assert model.image_encoder.grid_size == (8, 8)
    assert model.image_encoder.image_size == 128
    kept = model.image_encoder.visual.positional_embedding
    torch.testing.assert_close(kept, grown["visual.positional_embedding"])
    resize_pos_embed(grown, load(f"local-dir:{quick_folder}").text_encoder.model)  # as OpenCLIP would
    assert grown["visual.positional_embedding"].shape == (17, 32)
    torch.save({**quick_state, "visual.positional_embedding": torch.randn(66, 32)}, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"visual\.positional_embedding \(66, 32\) in place of \(17, 32\)"):
        load(f"local-dir:{quick_folder}", tmp_path / "b.pt")


def test_a_timm_model_of_somebody_is_not_fetched(quick_folder, tmp_path):
    described = json.loads((quick_folder / "open_clip_config.json").read_text())
    described["model_cfg"]["vision_cfg"] = {"timm_model_name": "hf-hub:evil/one", "image_size": 64}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="'hf-hub:evil/one', a model of somebody's"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("vision", "text"), [({"ls_init_value": 0.1}, {}), ({}, {"embed_cls": True, "ls_init_value": 0.1}), ({}, {})]
)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_of_every_part(vision, text, precision, tmp_path, any_precision):
    """What OpenCLIP leaves in fp32 does not meet the rest."""
    config = {**QUICK, "vision_cfg": {**QUICK["vision_cfg"], **vision}, "text_cfg": {**QUICK["text_cfg"], **text}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = load(tmp_path, "random", precision=precision)
    assert features(model).isfinite().all()
    assert features(model).dtype == getattr(torch, {"fp16": "float16", "bf16": "bfloat16"}[precision])
    assert model.encode_text(["sky"]).features.isfinite().all()


def test_normalization_is_the_checkpoints_own():
    """But for the rows of the published tables, and what is said."""
    own = {"ViT-B-16-SigLIP": ("webli", [127.5] * 3), "ViT-B-16": ("openai", [122.77, 116.75, 104.09])}
    for name, (tag, mean) in own.items():
        for one in (Weights(name, tag, tag=tag), Weights(name, "random"), Weights(name, "/some/file.pt")):
            assert [255 * value for value in _normalization(one, {})[0]] == pytest.approx(mean, abs=0.01)

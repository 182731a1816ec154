"""CLIPModel and SiglipModel in Hugging Face's layout are transformers' own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub import Hub
from model_files import NOISE, features, load, save_tokenizer, shard
from torch import Tensor

from clearclip import ClearCLIP
from clearclip.backbones.dense_encoder import UNCHANGED

pytestmark = pytest.mark.usefixtures("no_network")


def hugging_face(kind: str, folder: Path, side: int = 64):
    """A small CLIPModel or SiglipModel with its tokenizer, saved by transformers; returns the model."""
    transformers = pytest.importorskip("transformers")
    size = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    text = dict(**size, max_position_embeddings=16, vocab_size=49408 if kind == "clip" else 12)
    text |= {} if kind == "clip" else {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    names = ("CLIPConfig", "CLIPModel") if kind == "clip" else ("SiglipConfig", "SiglipModel")
    config, model = (getattr(transformers, name) for name in names)
    torch.manual_seed(0)
    model = model(config(text_config=text, vision_config=dict(size, image_size=side, patch_size=16))).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if kind == "siglip":
        save_tokenizer(folder)
    return model


def pooled(output) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output


@torch.inference_mode()
def assert_hugging_faces_own(model: ClearCLIP, own) -> None:
    encoder = model.image_encoder
    x = encoder.tokens(NOISE, "size")
    for part in encoder.parts((4, 4)):
        x = UNCHANGED([part], x)
    close = dict(rtol=1e-4, atol=1e-5)
    if encoder.has_class_token:
        torch.testing.assert_close(encoder.head(x[:, :1])[:, 0], pooled(own.get_image_features(NOISE)), **close)
    else:
        hidden = own.vision_model(NOISE).last_hidden_state
        torch.testing.assert_close(own.vision_model.post_layernorm(x), hidden, **close)
        # Attention over one token is that token's value.
        torch.testing.assert_close(encoder.head(x[:, 3:4])[:, 0], own.vision_model.head(hidden[:, 3:4]), **close)
    tokens = model.text_encoder.tokenizer(["a photo of a tree", "sky"])
    got = model.text_encoder.model.encode_text(tokens)
    torch.testing.assert_close(got, pooled(own.get_text_features(input_ids=tokens)), **close)
    assert features(model).shape == (1, 4, 4, encoder.dim)
    assert model.segment(torch.zeros(64, 64, 3, dtype=torch.uint8).numpy(), ["sky", "tree"]).labels.shape == (64, 64)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_hugging_faces_layout(kind, tmp_path, any_precision):
    own = hugging_face(kind, tmp_path)
    model = load(tmp_path)
    assert_hugging_faces_own(model, own)
    halves = load(tmp_path, precision="bf16")
    assert features(halves).dtype == torch.bfloat16
    close = torch.nn.functional.cosine_similarity(features(halves).float(), features(model), dim=-1)
    assert close.min() > 0.99
    wanted = model.encode_text(["sky"]).features
    torch.testing.assert_close(halves.encode_text(["sky"]).features, wanted, rtol=0, atol=0.05)
    openais = pytest.approx([122.771, 116.746, 104.094], abs=1e-3)
    assert model.mean.flatten().tolist() == (pytest.approx([127.5] * 3) if kind == "siglip" else openais)
    for names in ((f"local-dir:{tmp_path}",), (None, tmp_path), (None, tmp_path / "model.safetensors")):
        torch.testing.assert_close(features(load(*names)), features(model))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    assert load(tmp_path).mean.flatten().tolist() == pytest.approx([25.5] * 3)
    assert load(tmp_path, normalization="openai").mean.flatten().tolist() == openais
    (tmp_path / "model.safetensors").unlink()
    shard(own.state_dict(), tmp_path)
    assert_hugging_faces_own(load(tmp_path), own)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_hugging_faces_layout_from_the_hub(kind, tmp_path, monkeypatch):
    own = hugging_face(kind, tmp_path)
    with Hub() as server:
        server.files = {f"some/one/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        assert_hugging_faces_own(load("hf-hub:some/one"), own)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_hugging_faces_own(load("hf-hub:some/one"), own)

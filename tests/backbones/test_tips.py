"""TIPSv2: outputs recorded from its authors' own classes, and what a wrong guess would cost."""

from __future__ import annotations

import sys

import dense_folders
import pytest
import timm
import torch
from dense_folders import largest_error, patch_features, recorded, tips_folder
from timm.models.vision_transformer import checkpoint_filter_fn

from clearclip import ClearCLIP, UserError
from clearclip.backbones import tips
from clearclip.backbones.vit_of_weights import Heads, from_dinov2_names, plain_vit


@pytest.fixture(scope="module", params=["flat", "nested", "npz"])
def model(request, tmp_path_factory) -> ClearCLIP:
    pytest.importorskip("sentencepiece")
    folder = tips_folder(tmp_path_factory.mktemp("tips"), request.param)
    return ClearCLIP.from_pretrained(folder, device="cpu", cached=False)


@pytest.mark.parametrize(
    ("size", "method", "what"),
    [
        ("112x112", "CLIP", "patches"),
        ("84x154", "CLIP", "patches"),
        ("112x112", "MaskCLIP", "values"),
        ("112x112", "ClearCLIP", "clearclip"),
    ],
)
def test_patches(model, size, method, what):
    assert largest_error(patch_features(model, size, method), recorded(f"tipsv2|{size}|{what}")) < 2e-5


def test_tokens(model):
    for size in ("112x112", "84x154"):
        tokens = model.image_encoder.tokens(dense_folders.images(size), "size")[0]
        assert largest_error(tokens, recorded(f"tipsv2|{size}|tokens")) < 2e-5


def text_tokens() -> dict[str, torch.Tensor]:
    ids = recorded("tipsv2|text|ids")
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def test_text_and_cosines(model):
    features = model.text_encoder.model.encode_text(text_tokens())
    assert largest_error(features, recorded("tipsv2|text|features")) < 2e-5
    values = torch.nn.functional.normalize(patch_features(model, "112x112", "MaskCLIP"), dim=-1)
    cosines = values @ torch.nn.functional.normalize(features, dim=-1).T
    assert largest_error(cosines, recorded("tipsv2|112x112|cosines")) < 2e-5


def test_prompts_may_be_cut(model):
    """Padding is masked, so the same prompts without it have the same embeddings."""
    tokens = text_tokens()
    cut = {name: value[2:3, :9] for name, value in tokens.items()}
    assert largest_error(model.text_encoder.model.encode_text(cut), recorded("tipsv2|text|features")[2:3]) < 2e-5


def test_values_are_from_0_to_1(model):
    assert model.mean.tolist() == [[[0.0]]] * 3
    assert model.std.tolist() == [[[255.0]]] * 3


def test_a_text_without_its_mask_is_another(model):
    tokens = text_tokens()
    tokens["attention_mask"] = torch.ones_like(tokens["input_ids"])
    wrong = model.text_encoder.model.encode_text(tokens)
    assert largest_error(wrong[:3], recorded("tipsv2|text|features")[:3]) > 0.1


def test_interleaved_positions_of_a_text_are_others(model, monkeypatch):
    own = tips.sinusoids
    monkeypatch.setattr(tips, "sinusoids", lambda length, width: own(length, width).unflatten(1, (2, -1)).mT.flatten(1))
    wrong = model.text_encoder.model.encode_text(text_tokens())
    assert largest_error(wrong, recorded("tipsv2|text|features")) > 1e-3


def test_bicubic_positions_are_others(model, monkeypatch):
    from clearclip.backbones import DenseEncoder

    monkeypatch.setattr(tips.TipsEncoder, "resized_positions", DenseEncoder.resized_positions)
    monkeypatch.setattr(model.image_encoder, "_cached", {})
    tokens = model.image_encoder.tokens(dense_folders.images("84x154"), "size")[0]
    model.image_encoder._cached = {}
    assert largest_error(tokens, recorded("tipsv2|84x154|tokens")) > 1e-3


def test_gated_towers_are_timms():
    """g/14 has a SwiGLU."""
    state = dense_folders.weights("tipsv2-swiglu")
    sizes = dict(embed_dim=96, depth=3, num_heads=3, img_size=112, mlp_ratio=512 / 96 + 0.001, num_classes=0)
    vit = timm.create_model("vit_giant_patch14_reg1_tipsv2", **sizes).eval()
    vit.load_state_dict(checkpoint_filter_fn(dict(state), vit))
    names = {name.removeprefix("vision_encoder."): value for name, value in state.items()}
    ours = plain_vit(from_dinov2_names(names), Heads(3, None), "g/14").eval()
    with torch.inference_mode():
        wanted = vit.forward_features(dense_folders.images("112x112"))
        assert largest_error(ours.forward_features(dense_folders.images("112x112")), wanted) < 1e-6


def test_the_tokenizer_lower_cases_pads_and_cuts(model):
    tokenize = model.text_encoder.tokenizer
    assert torch.equal(tokenize(["A Tree"])["input_ids"], tokenize(["a tree"])["input_ids"])
    long = tokenize(["tree " * 200, "sky"])
    assert long["input_ids"].shape == (2, 64)
    assert long["attention_mask"].sum(dim=1).tolist() == [64, int((long["input_ids"][1] != 0).sum())]


def test_sentencepiece_is_named(tmp_path, monkeypatch):
    folder = tips_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match="pip install sentencepiece"):
        ClearCLIP.from_pretrained(folder, device="cpu")


def test_what_is_missing_or_damaged_is_one_line(tmp_path):
    folder = tips_folder(tmp_path)
    (folder / "config.json").write_text('{"model_type": "tipsv2"}')
    with pytest.raises(UserError, match=r"no published image tower has a width of 96; say .* as num_heads in a"):
        ClearCLIP.from_pretrained(folder, device="cpu")
    (folder / "tokenizer.model").write_bytes(b"none")
    with pytest.raises(UserError, match=r"tokenizer\.model is no tokenizer of SentencePiece"):
        ClearCLIP.from_pretrained(folder, device="cpu")
    (folder / "tokenizer.model").unlink()
    with pytest.raises(UserError, match=r"lacks the tokenizer of TIPSv2 \(tokenizer\.model\); download"):
        ClearCLIP.from_pretrained("tipsv2-b14", folder, device="cpu")

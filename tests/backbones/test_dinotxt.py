"""dino.txt: outputs recorded from its authors' own classes, and what a wrong guess would cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from dense_folders import OUTPUTS, dinotxt_folder, dinotxt_weights, largest_error, patch_features, recorded
from timm.models.eva import Eva

from clearclip import ClearCLIP, UserError
from clearclip.backbones import loading
from clearclip.backbones.dense_encoder import UNCHANGED
from clearclip.methods import build_method
from clearclip.text import ClassWords


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return dinotxt_folder(tmp_path_factory.mktemp("dinotxt"))


@pytest.fixture(scope="module")
def model(folder) -> ClearCLIP:
    return ClearCLIP.from_pretrained(folder, device="cpu", cached=False)


@pytest.fixture
def fresh(folder) -> ClearCLIP:
    """A model that a test may change."""
    return ClearCLIP.from_pretrained("dinotxt-l16", folder, device="cpu", cached=False)


@pytest.fixture(scope="module")
def at_backbone(folder) -> ClearCLIP:
    return ClearCLIP.from_pretrained("dinotxt-l16-backbone", folder, device="cpu", cached=False)


@pytest.mark.parametrize(
    ("size", "method", "what"),
    [
        ("64x64", "CLIP", "patches"),
        ("96x160", "CLIP", "patches"),
        ("64x64", "ClearCLIP", "clearclip-head"),
        ("64x64", "MaskCLIP", "maskclip-head"),
    ],
)
def test_patches(model, size, method, what):
    assert largest_error(patch_features(model, size, method), recorded(f"dinotxt|{size}|{what}")) < 2e-5


@pytest.mark.parametrize("size", ["64x64", "96x160"])
def test_the_backbones_last_block(at_backbone, size, monkeypatch):
    """The unchanged block gives the model's own patches; without the head behind it the recorded features."""
    assert largest_error(patch_features(at_backbone, size, "CLIP"), recorded(f"dinotxt|{size}|patches")) < 2e-5
    encoder = at_backbone.image_encoder
    prefix = encoder.num_prefix_tokens
    monkeypatch.setattr(type(encoder), "embed_patches", lambda self, x: self.visual.trunk.norm(x)[:, prefix:])
    assert largest_error(patch_features(at_backbone, size, "CLIP"), recorded(f"dinotxt|{size}|backbone")) < 2e-5
    wanted = recorded(f"dinotxt|{size}|clearclip-backbone-only")
    assert largest_error(patch_features(at_backbone, size, "ClearCLIP"), wanted) < 2e-5


def test_text(model):
    tokens = model.text_encoder.tokenizer([str(prompt) for prompt in OUTPUTS["dinotxt|text|prompts"]])
    assert torch.equal(tokens, recorded("dinotxt|text|ids"))
    features, whole = model.text_encoder.model.encode_text(tokens), recorded("dinotxt|text|features")
    assert largest_error(features, whole[:, 96:]) < 2e-5  # the half of the patches
    assert largest_error(features, whole[:, :96]) > 0.1


def test_classes_and_cosines(model):
    words = ClassWords((("bed ",), ("traffic light",), ("tree",)))  # the authors' list has the space
    features = model.text_encoder.encode(words).features
    assert largest_error(features, recorded("dinotxt|text|classes")) < 2e-5
    cosines = F.normalize(patch_features(model, "64x64", "CLIP"), dim=-1) @ features.T
    assert largest_error(cosines, recorded("dinotxt|64x64|cosines")) < 2e-5


def _no_norm(model):
    model.image_encoder.visual.trunk.norm = torch.nn.Identity()


def _rotary_in_the_head(model):
    encoder = model.image_encoder
    run, count = encoder.run_block, len(encoder.visual.trunk.blocks)

    def run_block(index, tokens, grid):
        if index < count:
            return run(index, tokens, grid)
        parts = encoder.parts(grid)
        return UNCHANGED([replace(parts[index], rotate=parts[0].rotate)], tokens)

    encoder.run_block = run_block


def _periods_rounded(model):
    periods = model.image_encoder.visual.trunk.rope.periods
    periods.copy_(periods.bfloat16().float())


def _bias_of_k(model):
    backbone, _ = dinotxt_weights()
    for number, block in enumerate(model.image_encoder.visual.trunk.blocks):
        bias = backbone[f"blocks.{number}.attn.qkv.bias"]
        attention = block.attn
        attention.k_bias = torch.nn.Parameter(bias[96:192], requires_grad=False)


def _patches_alone_in_the_head(model):
    encoder = model.image_encoder
    run = encoder.run_block
    count = len(encoder.visual.trunk.blocks)

    def run_block(index, tokens, grid):
        if index < count:
            return run(index, tokens, grid)
        prefix = encoder.num_prefix_tokens
        return torch.cat([tokens[:, :prefix], run(index, tokens[:, prefix:], grid)], dim=1)

    encoder.run_block = run_block


@pytest.mark.parametrize(
    "guess", [_no_norm, _rotary_in_the_head, _periods_rounded, _bias_of_k, _patches_alone_in_the_head]
)
def test_a_wrong_guess_is_noticed(fresh, guess):
    guess(fresh)
    fresh.image_encoder._cached = {}
    assert largest_error(patch_features(fresh, "96x160", "CLIP"), recorded("dinotxt|96x160|patches")) > 2e-5


def test_every_norm_has_the_releases_epsilon(model):
    norms = [module for module in model.image_encoder.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-5}
    assert isinstance(model.image_encoder.visual.trunk, Eva)


@pytest.mark.parametrize("method", ["GEM", "SC-CLIP", "NACLIP + RCS"])
def test_methods_over_several_blocks_are_refused_before_a_download(method, monkeypatch):
    monkeypatch.setattr(loading, "dense_files", lambda *_: pytest.fail("fetched"))
    with pytest.raises(UserError, match="mixes the tokens of several blocks, which differ in this image tower"):
        ClearCLIP.from_pretrained("dinotxt-l16", method=method, device="cpu")


def test_words_need_the_head(tmp_path, folder):
    with pytest.raises(UserError, match="cannot be downloaded by a program; ask Meta for both"):
        ClearCLIP.from_pretrained("dinotxt-l16", device="cpu")
    backbone, _ = dinotxt_weights()
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    torch.save(backbone, tmp_path / "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth")
    with pytest.raises(UserError, match=r"lacks the text of dino\.txt"):
        ClearCLIP.from_pretrained("dinotxt-l16", tmp_path, device="cpu")
    torch.save(backbone, tmp_path / "dinov3_vitl16_dinotxt_x.pth")
    with pytest.raises(UserError, match=r"has no head of dino\.txt, without which DINOv3 knows no words"):
        ClearCLIP.from_pretrained("dinotxt-l16", tmp_path, device="cpu")


def test_an_untrained_layer_scale_is_said(tmp_path):
    folder = dinotxt_folder(tmp_path)
    path = next(folder.glob("*dinotxt*"))
    state = torch.load(path, weights_only=True)
    state["visual_model.head.blocks.1.ls1.gamma"].fill_(1e-5)
    torch.save(state, path)
    with pytest.warns(UserWarning, match="LayerScale is not trained"):
        ClearCLIP.from_pretrained(folder, device="cpu", cached=False)


def test_patches_are_compared_with_words_behind_the_head_only(at_backbone):
    with pytest.raises(UserError, match="compares patches with words before the head; use dinotxt-l16"):
        at_backbone.check(build_method("NACLIP + SFR"))

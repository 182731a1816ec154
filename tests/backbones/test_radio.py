"""C-RADIO: outputs recorded from its authors' own classes, and what a wrong guess would cost."""

from __future__ import annotations

import argparse

import dense_folders
import pytest
import torch
import torch.nn.functional as F
from dense_folders import largest_error, patch_features, radio_folder, radio_weights, recorded

from clearclip import ClearCLIP, UserError
from clearclip.backbones import loading
from clearclip.backbones.radio import Adaptor

FORMS = {
    "v3": dict(version="v3"),
    "v4": dict(version="v4"),
    "v3, adaptors by number, tower from the .pth.tar": dict(version="v3", numbered=True, hub=False),
}


@pytest.fixture(scope="module", params=FORMS)
def named_model(request, tmp_path_factory) -> tuple[str, ClearCLIP]:
    """The version, and its model."""
    folder = radio_folder(tmp_path_factory.mktemp("radio"), **FORMS[request.param])
    return FORMS[request.param]["version"], ClearCLIP.from_pretrained(folder, device="cpu", cached=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return radio_folder(tmp_path_factory.mktemp("radio"), "v3")


@pytest.fixture
def model(folder) -> ClearCLIP:
    """v3, which a test may change."""
    return ClearCLIP.from_pretrained("c-radio-v3-b", folder, device="cpu", cached=False)


@pytest.mark.parametrize(
    ("version", "size", "method", "what"),
    [
        ("v3", "128x128", "CLIP", "aligned"),
        ("v3", "128x128", "ClearCLIP", "clearclip-aligned"),
        ("v3", "128x128", "MaskCLIP", "maskclip-aligned"),
        ("v4", "96x160", "CLIP", "aligned"),
    ],
)
def test_patches(named_model, version, size, method, what):
    if named_model[0] == version:
        wanted = recorded(f"radio-{version}|{size}|{what}")
        assert largest_error(patch_features(named_model[1], size, method), wanted) < 2e-5


@pytest.mark.parametrize(("version", "size"), [("v3", "128x128"), ("v3", "96x160"), ("v4", "96x160")])
def test_tokens(named_model, version, size):
    if named_model[0] == version:
        tokens = named_model[1].image_encoder.tokens(dense_folders.images(size), "size")[0]
        assert largest_error(tokens, recorded(f"radio-{version}|{size}|tokens")) < 2e-5


@pytest.mark.parametrize(
    ("size", "method", "what"),
    [
        ("128x128", "CLIP", "backbone"),
        ("96x160", "CLIP", "backbone"),
        ("128x128", "ClearCLIP", "clearclip-backbone"),
    ],
)
def test_before_the_adaptor(model, size, method, what):
    model.image_encoder.visual.head = torch.nn.Identity()
    assert largest_error(patch_features(model, size, method), recorded(f"radio-v3|{size}|{what}")) < 2e-5


@torch.inference_mode()
def test_both_adaptors_as_nvidia_applies_them(model):
    """The summary adaptor on the second class token, the feature adaptor on the patches."""
    encoder, state, tokens = model.image_encoder, radio_weights("v3"), []
    adaptor, encoder.visual.head = encoder.visual.head, torch.nn.Identity()
    embed_patches = encoder.embed_patches
    encoder.embed_patches = lambda x: tokens.append(x) or embed_patches(x)
    for size in ("128x128", "96x160"):
        patch_features(model, size, "CLIP")
        assert largest_error(adaptor(tokens.pop()[0, 1]), recorded(f"radio-v3|{size}|siglip2-summary")) < 2e-5
    prefix = "_feature_projections.siglip2."
    features = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    feature_adaptor = Adaptor(features)
    feature_adaptor.load_state_dict(features)
    patches = feature_adaptor(patch_features(model, "128x128", "CLIP"))
    assert largest_error(patches, recorded("radio-v3|128x128|siglip2-features")) < 2e-5
    assert largest_error(patches, recorded("radio-v3|128x128|aligned")) > 0.1  # not what text is compared with


def test_text_and_cosines(named_model):
    version, model = named_model
    features = model.text_encoder.model.encode_text(recorded("siglip-text|ids"))
    assert largest_error(features, recorded("siglip-text|features")) < 2e-5
    size = {"v3": "128x128", "v4": "96x160"}[version]
    cosines = F.normalize(patch_features(model, size, "CLIP"), dim=-1) @ F.normalize(features, dim=-1).T
    assert largest_error(cosines, recorded(f"radio-{version}|{size}|cosines")) < 2e-5


def test_words_are_canonicalised_and_padding_is_kept(model):
    tokenize = model.text_encoder.tokenizer
    assert torch.equal(tokenize(["A  photo, of_a Tree!"]), tokenize(["a photo of a tree"]))
    assert tokenize(["tree"]).shape == (1, 64)
    widths, encode = [], model.text_encoder.model.encode_text
    model.text_encoder.model.encode_text = lambda tokens: widths.append(tokens.shape[1]) or encode(tokens)
    model.encode_text(["tree"])
    assert set(widths) == {64}


def _corners(model):
    def positions(embedding, grid, how):
        side = max(grid)
        table = embedding.T.unflatten(1, (16, 16))[None]
        square = F.interpolate(table, size=(side, side), mode="bilinear", align_corners=True)
        return square[0, :, : grid[0], : grid[1]].flatten(1).T

    model.image_encoder.resized_positions = positions


def _no_layer_scale(model):
    for block in model.image_encoder.blocks:
        block.ls1.gamma.fill_(1)
        block.ls2.gamma.fill_(1)


@pytest.mark.parametrize("guess", [_corners, _no_layer_scale])
def test_a_wrong_guess_is_noticed(model, guess):
    guess(model)
    assert largest_error(patch_features(model, "128x128", "CLIP"), recorded("radio-v3|128x128|aligned")) > 1e-3


def test_values_have_clips_mean_and_std(model):
    assert model.mean.flatten().tolist() == pytest.approx([122.7709, 116.7460, 104.0937], abs=1e-3)
    assert model.std.flatten().tolist() == pytest.approx([68.5005, 66.6322, 70.3232], abs=1e-3)


def test_methods_that_read_the_class_token_are_refused_before_a_download(monkeypatch):
    monkeypatch.setattr(loading, "dense_files", lambda *_: pytest.fail("fetched"))
    with pytest.raises(UserError, match="reads the class token, which this image tower has not"):
        ClearCLIP.from_pretrained("c-radio-v3-b", method="SC-CLIP", device="cpu")


class Foreign:
    """What is more than data."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda contents: contents["args"].__dict__.update(hook=Foreign()), r"holds more than weights .*Foreign"),
        (lambda contents: _drop(contents, "_heads."), "has no adaptor of class tokens; words need SigLIP 2's"),
        (lambda contents: _rename(contents, "siglip2", "dino_v2"), "has the adaptors dino_v2; words need SigLIP 2's"),
        (lambda contents: _rename(contents, "fc1.weight", "fc1.parametrizations.weight.original"), "spectral"),
        (lambda contents: contents["state_dict"].pop("_heads.siglip2.fc1.bias"), r"lacks fc1\.bias"),
    ],
)
def test_what_is_no_such_file_is_one_line(change, message, tmp_path):
    folder = radio_folder(tmp_path)
    path = next(folder.glob("*.pth.tar"))
    with torch.serialization.safe_globals([argparse.Namespace]):
        contents = torch.load(path, weights_only=True)
    change(contents)
    torch.save(contents, path)
    with pytest.raises(UserError, match=message):
        ClearCLIP.from_pretrained(folder, device="cpu")


def _drop(contents, prefix):
    contents["state_dict"] = {n: value for n, value in contents["state_dict"].items() if not n.startswith(prefix)}


def _rename(contents, old, new):
    contents["state_dict"] = {name.replace(old, new): value for name, value in contents["state_dict"].items()}

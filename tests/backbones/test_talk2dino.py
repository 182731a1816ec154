"""Talk2DINO: outputs recorded from its authors' own classes, and what another order of the text's steps would cost."""

from __future__ import annotations

import json

import dense_folders
import pytest
import torch
import torch.nn.functional as F
from dense_folders import dinotxt_weights, largest_error, patch_features, recorded, talk2dino_folder

from clearclip import ClearCLIP


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ClearCLIP:
    folder = talk2dino_folder(tmp_path_factory.mktemp("talk2dino"))
    return ClearCLIP.from_pretrained(folder, device="cpu", cached=False, templates="talk2dino7")


WORDS = ["traffic light", "tree", "sky"]


@pytest.mark.parametrize(
    ("size", "method", "what"),
    [
        ("70x70", "CLIP", "patches"),
        ("112x112", "CLIP", "patches"),
        ("56x98", "CLIP", "patches"),
        ("70x70", "ClearCLIP", "clearclip"),
        ("112x112", "ClearCLIP", "clearclip"),
    ],
)
def test_patches(model, size, method, what):
    assert largest_error(patch_features(model, size, method), recorded(f"talk2dino|{size}|{what}")) < 2e-5


def test_text(model):
    assert largest_error(model.encode_text(WORDS).features, recorded("talk2dino|text|classes")) < 2e-5
    projected = model.text_encoder.combine(recorded("talk2dino|text|clip-mean")[:, None])
    assert largest_error(projected, recorded("talk2dino|text|classes")) < 2e-5
    normalised_first = model.text_encoder.combine(F.normalize(recorded("talk2dino|text|clip-mean"), dim=-1)[:, None])
    assert largest_error(normalised_first, recorded("talk2dino|text|classes")) > 0.01


@pytest.mark.parametrize("size", ["70x70", "112x112"])
def test_cosines(model, size):
    features = model.encode_text(WORDS).features
    cosines = F.normalize(patch_features(model, size, "CLIP"), dim=-1) @ features.T
    assert largest_error(cosines, recorded(f"talk2dino|{size}|cosines")) < 2e-5


def test_a_tower_of_dinov3(tmp_path):
    """In its own names; what its patches are is recorded for dino.txt."""
    folder = talk2dino_folder(tmp_path)
    next(folder.glob("dinov2_*")).unlink()
    torch.save(dinotxt_weights()[0], folder / "dinov3_vitb16_pretrain_lvd1689m.pth")
    model = ClearCLIP.from_pretrained("talk2dino-dinov3-b16", folder, device="cpu", cached=False)
    assert largest_error(patch_features(model, "96x160", "CLIP"), recorded("dinotxt|96x160|backbone")) < 2e-5


def test_older_names_of_the_projection(tmp_path, model):
    folder = talk2dino_folder(tmp_path)
    state = dense_folders.weights("talk2dino-projection", "proj.")
    older = {name.replace("hidden_layers.0.", "linear_layer2."): value for name, value in state.items()}
    torch.save(older, folder / "vitb_mlp_infonce.pth")
    assert json.loads((folder / "config.json").read_text()) == {"num_heads": 3}
    same = ClearCLIP.from_pretrained(folder, device="cpu", cached=False, templates="talk2dino7")
    assert torch.equal(same.encode_text(WORDS).features, model.encode_text(WORDS).features)

"""DINO: timm's own features, and the clear refusal to segment by words."""

import math

import numpy as np
import pytest
import torch

from clearclip import ClearCLIP, LastBlock, UserError
from clearclip.backbones.dino_tower import load_dino
from clearclip.evaluation import ClearCLIPSegmentation
from clearclip.weights import choose_weights

timm = pytest.importorskip("timm")

VANILLA = LastBlock("qk", residual=True, ffn=True)
SMALL = dict(embed_dim=48, depth=3, num_heads=4, img_size=64)


def load(path):
    """Tower, mean and std."""
    return load_dino(choose_weights("DINO", pretrained=str(path)), torch.device("cpu"), "fp32")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """timm, and so dino.py, builds a small ViT; returns one with random weights and its file."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **SMALL, **options))
    torch.manual_seed(0)
    vit = timm.create_model("vit_base_patch16_224.dino").eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save(vit.state_dict(), tmp_path / "dino.pth")
    return vit, tmp_path / "dino.pth"


def test_vanilla_is_timms_own_output(small):
    vit, path = small
    encoder, mean, std = load(path)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = vit.forward_features(image)[:, 1:]
        (features,) = encoder(image, [VANILLA])
        assert encoder(torch.randn(1, 3, 32, 80), [VANILLA])[0].shape == (1, 2, 5, 48)
    assert features.shape == (2, 4, 4, 48)
    torch.testing.assert_close(features.flatten(1, 2), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean, [123.675, 116.28, 103.53])
    np.testing.assert_allclose(std, [58.395, 57.12, 57.375])


def test_segmenting_by_words_is_refused(small):
    model = ClearCLIP.from_pretrained(clip_type="DINO", pretrained="random", device="cpu")
    np.testing.assert_allclose(model.mean.flatten(), [123.675, 116.28, 103.53], rtol=1e-5)
    with pytest.raises(UserError, match="no text side"):
        model.segment(np.zeros((64, 64, 3), np.uint8), ["cat", "dog"])
    with pytest.raises(UserError, match="no text side"):
        ClearCLIPSegmentation(clip_type="DINO", pretrained="random", class_names=["cat"], device="cpu")


def test_bad_requests_are_one_line(small, tmp_path):
    with pytest.raises(UserError, match="DINO has no vit_type 'ViT-L/14'; choose ViT-B/16"):
        ClearCLIP.from_pretrained(clip_type="DINO", vit_type="ViT-L/14")
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "none.pth")
    state = small[0].state_dict()
    without = {name: tensor for name, tensor in state.items() if name != "norm.weight"}
    for content, message in (
        (state | {"norm.weight": torch.full((48,), math.inf)}, r"NaN or infinite values in .*norm\.weight"),
        (without, r"cannot be loaded as DINO ViT-B/16.*norm\.weight"),
        ({"model": print}, "holds more than weights or is damaged"),
    ):
        torch.save(content, tmp_path / "broken.pth")
        with pytest.raises(UserError, match=message):
            load(tmp_path / "broken.pth")

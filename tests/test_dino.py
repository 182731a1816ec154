"""DINO: timm's own features, and the clear refusal to segment by words."""

import math

import numpy as np
import pytest
import torch

from clearclip import ClearCLIP, LastBlock, UserError
from clearclip.analysis.statistics import collect
from clearclip.checkpoints import choose_weights
from clearclip.encoders.dino import load_dino
from clearclip.mmseg import ClearCLIPSegmentation

timm = pytest.importorskip("timm")

CPU = torch.device("cpu")
VANILLA = LastBlock("qk", residual=True, ffn=True)
MODEL = "vit_base_patch16_224.dino"


def load(path):
    """Tower, mean and std."""
    return load_dino(choose_weights("DINO", pretrained=str(path)), CPU, "fp32")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small ViT in place of DINO's, as timm builds it, and its weights as a file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dino") / "dino.pth"
    vit = timm.create_model(MODEL, embed_dim=48, depth=3, num_heads=4, img_size=64).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save(vit.state_dict(), path)
    return vit, path


@pytest.fixture
def shrunk(small, monkeypatch):
    """Let dino.py build the small ViT; returns timm's module and the file."""
    create = timm.create_model
    sizes = dict(embed_dim=48, depth=3, num_heads=4, img_size=64)
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **sizes, **options))
    return small


def test_vanilla_is_timms_own_output(shrunk):
    vit, path = shrunk
    encoder, mean, std = load(path)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = vit.forward_features(image)[:, 1:]
        (features,) = encoder(image, [VANILLA])
    assert features.shape == (2, 4, 4, 48)
    torch.testing.assert_close(features.flatten(1, 2), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean, [123.675, 116.28, 103.53])
    np.testing.assert_allclose(std, [58.395, 57.12, 57.375])


def test_statistics_see_every_block(shrunk):
    vit, path = shrunk
    seen = []
    handles = [block.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0])) for block in vit.blocks]
    handles += [block.attn.register_forward_hook(lambda _m, _i, out: seen.append(out)) for block in vit.blocks]
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        vit.forward_features(image)
    for handle in handles:
        handle.remove()
    found = collect(load(path)[0], [image])
    expected = np.array([[float(x.norm()), float(attn.norm())] for x, attn in zip(seen[::2], seen[1::2], strict=True)])
    np.testing.assert_allclose(found.norm[:2].T, expected, rtol=1e-4)


def test_images_of_other_sizes(shrunk):
    with torch.no_grad():
        assert load(shrunk[1])[0](torch.randn(1, 3, 32, 80), [VANILLA])[0].shape == (1, 2, 5, 48)


def test_segmenting_by_words_is_refused(shrunk):
    model = ClearCLIP.from_pretrained(clip_type="DINO", pretrained="random", device="cpu")
    np.testing.assert_allclose(model.mean.flatten(), [123.675, 116.28, 103.53], rtol=1e-5)
    with pytest.raises(UserError, match="no text side"):
        model.segment(np.zeros((64, 64, 3), np.uint8), ["cat", "dog"])
    with pytest.raises(UserError, match="no text side"):
        ClearCLIPSegmentation(clip_type="DINO", pretrained="random", class_names=["cat"], device="cpu")


def test_bad_requests_are_one_line(shrunk, tmp_path):
    with pytest.raises(UserError, match="DINO has no vit_type 'ViT-L/14'; choose ViT-B/16"):
        ClearCLIP.from_pretrained(clip_type="DINO", vit_type="ViT-L/14")
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "none.pth")
    broken = torch.load(shrunk[1], weights_only=True)
    broken["norm.weight"][0] = math.inf
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(UserError, match=r"NaN or infinite values in norm\.weight"):
        load(tmp_path / "broken.pth")
    del broken["norm.weight"]
    torch.save(broken, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"cannot be loaded as DINO's ViT-B/16.*norm\.weight"):
        load(tmp_path / "part.pth")
    torch.save({"model": print}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path / "code.pth")

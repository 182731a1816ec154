"""From settings to both towers of a model."""

from __future__ import annotations

import open_clip
import pytest
import torch

from clearclip import ClearCLIP
from clearclip.backbones import load_clip
from clearclip.evaluation import ClearCLIPSegmentation
from clearclip.miniature import DIRECTORY
from clearclip.weights import choose_weights

CPU = torch.device("cpu")


def test_normalization(tiny_name):
    default = ClearCLIP.from_pretrained(tiny_name, device="cpu")
    assert default.mean.flatten().tolist() == pytest.approx([122.771, 116.746, 104.094], abs=1e-3)
    assert default.std.flatten().tolist() == pytest.approx([68.501, 66.632, 70.323], abs=1e-3)
    segmentor = ClearCLIPSegmentation(model_name=tiny_name, class_names=["a"], device="cpu", normalization="pretrained")
    own = open_clip.get_model_preprocess_cfg(load_clip(choose_weights(model_name=tiny_name), CPU, "fp32").model)
    assert segmentor.model.mean.flatten().tolist() == pytest.approx([255 * value for value in own["mean"]])


def test_miniature_is_loaded_by_the_same_code():
    weights = choose_weights("Miniature")
    assert weights.model_name == f"local-dir:{DIRECTORY}"
    assert sum(p.numel() for p in load_clip(weights, CPU, "fp32").model.parameters()) < 6_000_000


@pytest.mark.parametrize(("vit_type", "patch", "blocks"), [("ViT-B/16", 16, 12), ("ViT-L/14", 14, 24)])
def test_real_size(vit_type, patch, blocks, monkeypatch):
    """The real architecture with random weights segments two images (of different sizes, in one batch)."""
    # Two prompts a word instead of 80: the text tower is the slow part here.
    monkeypatch.setattr("clearclip.text.encoder.TEMPLATES", open_clip.OPENAI_IMAGENET_TEMPLATES[:2])
    torch.manual_seed(0)
    segmentor = ClearCLIPSegmentation(
        clip_type="CLIP", vit_type=vit_type, pretrained="random", class_names=["sky", "a tree, bush"], device="cpu"
    )
    assert segmentor.model.image_encoder.patch_size == (patch, patch)
    assert len(segmentor.model.image_encoder.blocks) == blocks
    results = segmentor.predict([torch.randn(3, 112, 112), torch.randn(3, 90, 112)])
    assert [tuple(result.pred_sem_seg.data.shape) for result in results] == [(1, 112, 112), (1, 90, 112)]

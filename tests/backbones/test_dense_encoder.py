"""What all towers share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import open_clip
import pytest
import torch

from clearclip import ClearCLIP, UserError
from clearclip.backbones import TOWERS, DenseEncoder, dense_encoder


def test_what_is_kept_for_the_next_image_survives_threads():
    """More keys than are kept, from eight threads: none is missing, none is another one's."""
    encoder = DenseEncoder()
    keys = [(number % 24,) for number in range(4000)]
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda key: encoder.cached_value(key, lambda: f"value {key}"), keys))
    assert values == [f"value {key}" for key in keys]
    assert len(encoder._cached) <= 9


def test_positions_are_resized_once_per_grid(tiny_name, monkeypatch):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu")
    calls = []
    original = dense_encoder.resize_positions
    monkeypatch.setattr(dense_encoder, "resize_positions", lambda *args: calls.append(args[2]) or original(*args))
    for size in ((48, 72), (48, 72), (64, 64), (48, 72)):
        model.image_encoder(torch.zeros(1, 3, *size), [model.method])
    assert calls == [(6, 9), (8, 8)]
    image = torch.zeros(1, 3, 48, 72)
    before = model.image_encoder(image, [model.method])[0]
    with torch.no_grad():
        model.image_encoder.visual.positional_embedding.mul_(2)
    assert not torch.allclose(model.image_encoder(image, [model.method])[0], before)


@pytest.mark.parametrize(
    ("name", "what"),
    [("RN50", "ModifiedResNet"), ("coca_ViT-B-32", "attention"), ("convnext_base", "ConvNeXt")],
)
def test_towers_that_do_not_fit_are_named(name, what):
    with torch.device("meta"):
        config = open_clip.get_model_config(name)
        config.pop("custom_text", None)
        config.pop("multimodal_cfg", None)
        config["text_cfg"] = {"layers": 1, "width": 64, "heads": 1}
        visual = open_clip.model.CLIP(**config).visual
    with pytest.raises(UserError, match=f"{what}.*supported are"):
        TOWERS.build(visual)


def test_gem_needs_six_blocks(quick_name):
    with pytest.raises(UserError, match="last 6 blocks, but this model has 2"):
        ClearCLIP.from_pretrained(quick_name, model_type="GEM", device="cpu")

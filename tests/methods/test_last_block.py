"""ClearCLIP's last block, every attention × residual × FFN × alpha, against the paper's formula in loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from tiny_reference import image_of

from clearclip import ClearCLIP
from clearclip.methods import ATTENTIONS, LastBlock

#: Fixtures: the tiny model written out with loops.
pytest_plugins = ["tiny_reference"]

SWITCHES = list(product(ATTENTIONS, (True, False), (True, False)))


@pytest.mark.parametrize(("attention", "residual", "ffn"), SWITCHES)
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_last_block(tiny_name, tiny_tower, attention, residual, ffn, alpha):
    model = ClearCLIP.from_pretrained(tiny_name, method=LastBlock(attention, residual, ffn, alpha), device="cpu")
    image = image_of(48, 72)
    with torch.inference_mode():
        got = model.image_encoder(image[None], [model.method])[0][0].numpy()
    wanted = tiny_tower.features(image.double().numpy(), attention, residual, ffn, alpha)
    np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())


def test_vanilla_is_the_tower_itself(tiny_name):
    """q-k attention with residual and FFN at the model's own size gives OpenCLIP's own class token's neighbours."""
    model = ClearCLIP.from_pretrained(tiny_name, model_type="vanilla", ignore_residual=False, device="cpu")
    visual = model.image_encoder.visual
    image = image_of(64, 64)[None]
    with torch.inference_mode():
        own = visual.ln_post(visual.transformer(visual._embeds(image)))[:, 1:] @ visual.proj
        got = model.image_encoder(image, [model.method])[0].flatten(1, 2)
    torch.testing.assert_close(got, own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("ffn", [True, False])
def test_what_is_not_used_is_not_computed(tiny_name, attention, ffn):
    """NaN in the weights that the switches leave out reaches nothing."""
    model = ClearCLIP.from_pretrained(
        tiny_name,
        method=LastBlock(attention, residual=True, ffn=ffn),
        device="cpu",
        slide_crop=64,
        slide_stride=32,
    )
    image = torch.randn(1, 3, 64, 64)
    wanted = model.image_encoder(image, [model.method])[0]
    block = model.image_encoder.blocks[-1]
    width = block.attn.in_proj_weight.shape[1]
    needed = set("v") | (set(attention) & set("qkv") if attention != "identity" else set())
    with torch.no_grad():
        for index, name in enumerate("qkv"):
            if name not in needed:
                block.attn.in_proj_weight[index * width : (index + 1) * width] = float("nan")
                block.attn.in_proj_bias[index * width : (index + 1) * width] = float("nan")
        if not ffn:
            for parameter in (*block.mlp.parameters(), *block.ln_2.parameters()):
                parameter.fill_(float("nan"))
    torch.testing.assert_close(model.image_encoder(image, [model.method])[0], wanted, rtol=0, atol=0)

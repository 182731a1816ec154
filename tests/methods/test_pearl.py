"""PEARL: against outputs recorded from its release, and against its formula in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_models import LONG_WINDOW_SIZES, assert_close, features, load, models, parse_key, recordings, tower
from second_encoders import files
from tiny import sized_image

from clearclip.methods import (
    PEARL,
    Context,
    LastBlock,
    Method,
)
from clearclip.methods.pearl import newton_schulz

RECORDED = recordings("pearl")


@pytest.mark.parametrize("key", [key for key in RECORDED.files if key.startswith("PA|") and key.endswith("|features")])
def test_recorded_pearl(models, key):
    words, size, _ = parse_key(key)
    got = features(models[int(words[0][1:])], sized_image(*size)[None], recorded_pearl(words))[0].reshape(-1, 64)
    assert_close(got, RECORDED[key])


def recorded_pearl(words: list[str]) -> Method:
    """The method that a key of the recordings describes."""
    keep = {"residual": words[1] == "vanilla", "ffn": words[1] == "vanilla"}
    if words[2] == "vanilla":
        return LastBlock("qk", **keep)
    alpha = 0 if "nokk" in words else float(words[3].removeprefix("a"))
    return PEARL(alpha, steps=12 if "iters12" in words else 5, svd="svd" in words, **keep)


@pytest.mark.parametrize("key", [key for key in RECORDED.files if key.startswith("PA|") and "|attn" in key])
def test_recorded_attention(models, key):
    """What unit vectors as values gather is the attention: all rows, or those of the class token and a patch."""
    words, size, what = parse_key(key)
    encoder, image = models[int(words[0][1:])].image_encoder, sized_image(*size)[None]
    with torch.inference_mode():
        x = encoder.tokens(image, "scale_factor")
        for index in range(len(encoder.blocks) - 1):
            x = encoder.run_block(index, x, encoder.grid(image))
        block = encoder.parts(encoder.grid(image))[-1]
        unit = torch.eye(x.shape[1]).expand(1, block.heads, -1, -1)
        attention = recorded_pearl(words).gather(block, block.ln_1(x), unit, Context(encoder.grid(image)))[0]
    rows = [0, 1 + x.shape[1] // 2] if what == "attnrows" else slice(None)
    assert_close(attention[:, rows].numpy(), RECORDED[key])


def test_recorded_rotation():
    """R of the recorded M."""
    (key,) = (key for key in RECORDED.files if key.endswith("|96x96|M"))
    assert_close(newton_schulz(torch.from_numpy(RECORDED[key])).numpy(), RECORDED[key.removesuffix("M") + "R"])


LOOPS = {
    "PEARL": (PEARL(), {}),
    "PEARL, all options": (
        PEARL(0.3, 7, residual=True, ffn=True),
        {"alpha": 0.3, "steps": 7, "residual": True, "ffn": True},
    ),
}


@pytest.mark.parametrize("size", LONG_WINDOW_SIZES)
@pytest.mark.parametrize("name", LOOPS)
def test_pearl_formula(models, tower, name, size):
    method, options = LOOPS[name]
    image = sized_image(*size)
    assert_close(features(models[12], image[None], method)[0], tower.pearl_features(image.double().numpy(), **options))

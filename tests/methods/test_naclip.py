"""NACLIP: against outputs recorded from its release, and against its formula in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_models import WINDOW_SIZES, assert_close, features, load, models, parse_key, recordings, tower
from tiny import sized_image

from clearclip import UserError
from clearclip.backbones.casting import cast
from clearclip.backbones.open_clip_tower import ImageEncoder
from clearclip.methods import NACLIP, LastBlock, Method

RECORDED = recordings("family")


def recorded_method(words: list[str]) -> Method:
    """The method that a key of the recordings describes."""
    keep, strategy = words[1] == "vanilla", words[2]
    if strategy in ("csa", "vanilla"):
        return LastBlock({"csa": "qq+kk", "vanilla": "qk"}[strategy], keep, keep)
    return NACLIP(strategy, float(words[3].removeprefix("std")) if len(words) > 3 else 5.0, keep, keep)


@pytest.mark.parametrize("key", [key for key in RECORDED.files if key.startswith("NACLIP|")])
def test_recorded_naclip(models, key):
    words, size, what = parse_key(key)
    assert what == "features"
    model = models[int(words[0].removeprefix("L"))]
    got = features(model, sized_image(*size)[None], recorded_method(words))[0]
    assert_close(got.reshape(-1, 64), RECORDED[key])


FORMULAS = {
    "NACLIP": (NACLIP(), {}),
    "NACLIP, all options": (NACLIP("naclip", 1.5, residual=True, ffn=False), {"sigma": 1.5, "residual": True}),
    "nonly": (NACLIP("nonly", 2), {"strategy": "nonly", "sigma": 2}),
    "kk": (NACLIP("kk", ffn=True), {"strategy": "kk", "ffn": True}),
}


@pytest.mark.parametrize("size", WINDOW_SIZES)
@pytest.mark.parametrize("name", FORMULAS)
def test_naclip_formula(models, tower, name, size):
    method, options = FORMULAS[name]
    image = sized_image(*size)
    wanted = tower.naclip_features(image.double().numpy(), **options)
    assert_close(features(models[12], image[None], method)[0], wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0}, "sigma of NACLIP must be a number from 0.001"),
        ({"strategy": "gav"}, "unknown strategy of NACLIP 'gav'.*nonly"),
    ],
)
def test_what_naclip_cannot_be_is_one_clear_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        NACLIP(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("strategy", ["naclip", "nonly"])
def test_naclip_in_half_precision(load, models, strategy):
    half, image = ImageEncoder(cast(load(12).image_encoder.visual, "fp16")), sized_image(64, 96)[None]
    with torch.inference_mode():
        got = half(image, [NACLIP(strategy)])[0].numpy()
    assert got.dtype == np.float16
    wanted = features(models[12], image, NACLIP(strategy))
    np.testing.assert_allclose(got, wanted, atol=0.02 * np.abs(wanted).max())

"""RCS, ResCLIP's first module: against outputs recorded from its release, and against its formula in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_models import WINDOW_SIZES, assert_close, features, load, models, parse_key, recordings, tower
from tiny import sized_image

from clearclip import UserError
from clearclip.backbones.casting import cast
from clearclip.backbones.open_clip_tower import ImageEncoder
from clearclip.methods import NACLIP, RCS, LastBlock, Method, build_method

RECORDED = recordings("family")
SCLIP = LastBlock("qq+kk", residual=True, ffn=True)


def recorded_method(words: list[str]) -> Method:
    """The method that a key of the recordings describes."""
    base = {"resclip": NACLIP(), "clearclip": LastBlock()}[words[2]]
    return RCS(base) if words[-1] == "rcs" else base


@pytest.mark.parametrize("key", [key for key in RECORDED.files if key.startswith("ResCLIP|")])
def test_recorded_rcs(models, key):
    words, size, what = parse_key(key)
    assert what == "features"
    model = models[int(words[0].removeprefix("L"))]
    got = features(model, sized_image(*size)[None], recorded_method(words))[0]
    assert_close(got.reshape(-1, 64), RECORDED[key])


FORMULAS = {
    "ClearCLIP + RCS": (RCS(LastBlock()), {"base": "qq"}),
    "NACLIP + RCS": (RCS("NACLIP", layers=[1, 4]), {"base": "naclip", "layers": (1, 4)}),
    "SCLIP + RCS": (RCS(SCLIP, tau=1.5, lambda_r=0.6), {"base": "qq+kk", "tau": 1.5, "lambda_r": 0.6}),
}


@pytest.mark.parametrize("size", WINDOW_SIZES)
@pytest.mark.parametrize("name", FORMULAS)
def test_rcs_formula(models, tower, name, size):
    method, options = FORMULAS[name]
    image = sized_image(*size)
    wanted = tower.rcs_features(image.double().numpy(), **options)
    assert_close(features(models[12], image[None], method)[0], wanted)


def test_the_layers_are_the_published_ones_whatever_the_depth():
    assert RCS().required_blocks(24) == RCS().required_blocks(10) == (5, 6, 7, 8)


def test_labels_and_bases():
    assert RCS(NACLIP(), layers=(2, 3)).label == "NACLIP + RCS (layers=2,3)"
    assert build_method("SCLIP + RCS").without_residual_and_ffn().base == LastBlock("qq+kk")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ClearCLIP + RCS", "needs at least 10 blocks, but this model has 8"),
        ("GEM + RCS", "GEM has no single one"),
        ("SC-CLIP + RCS", "SC-CLIP has no single one"),
        ({"type": "RCS", "layers": []}, "layers of RCS must be block numbers"),
        ({"type": "RCS", "layers": [True]}, "layers of RCS must be block numbers"),
        ({"type": "RCS", "lambda_r": 2}, "lambda_r of RCS must be a number from 0 to 1"),
    ],
)
def test_what_rcs_cannot_be_is_one_clear_line(load, method, message):
    with pytest.raises(UserError, match=message) as error:
        load(8, method=method)
    assert "\n" not in str(error.value)


def test_rcs_in_half_precision(load, models):
    half, image = ImageEncoder(cast(load(12).image_encoder.visual, "fp16")), sized_image(64, 96)[None]
    with torch.inference_mode():
        got = half(image, [RCS()])[0].numpy()
    assert got.dtype == np.float16
    wanted = features(models[12], image, RCS())
    np.testing.assert_allclose(got, wanted, atol=0.02 * np.abs(wanted).max())

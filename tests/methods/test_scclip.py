"""SC-CLIP: against outputs recorded from its release, and against its formula in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_models import (
    HALF_DEPTH,
    WINDOW_SIZES,
    assert_close,
    features,
    last_inputs,
    load,
    models,
    parse_key,
    recordings,
    tower,
)
from tiny import sized_image

from clearclip import UserError
from clearclip.backbones.casting import cast
from clearclip.backbones.open_clip_tower import ImageEncoder
from clearclip.methods import SCCLIP, Context
from clearclip.methods.outliers import outlier_scores, outliers
from clearclip.methods.scclip import softmax_above_mean

RECORDED = recordings("family")


def recorded_method(words: list[str], patches: int) -> SCCLIP:
    """The method that a key of the recordings describes."""
    options = dict(HALF_DEPTH) if words[0] == "L8" else {}
    if "rescls0" in words:
        options["rho"] = 0.0
    elif "beta0.2" in words:
        options["beta"] = 0.2
    return SCCLIP(**options, neighbours=8 if patches <= 30 else 30)


@pytest.mark.parametrize("key", [key for key in RECORDED.files if not key.startswith(("PAMR", "NACLIP|", "ResCLIP|"))])
def test_recorded_scclip(models, key):
    words, (height, width), what = parse_key(key)
    model, image = models[int(words[0].removeprefix("L"))], sized_image(height, width)[None]
    method = recorded_method(words, height * width // 256)
    if what == "features":
        assert_close(features(model, image, method)[0].reshape(-1, 64), RECORDED[key])
        return
    patches = last_inputs(model, image)[-1][:, 1:]
    if what == "lof":
        assert_close(outlier_scores(patches, method.neighbours)[0].numpy(), RECORDED[key])
    else:
        numbers = outliers(patches, method.neighbours)[0].nonzero().flatten()
        assert numbers.tolist() == sorted(RECORDED[key].astype(int))


FORMULAS = {
    "SC-CLIP": (SCCLIP(), {"pre": 8, "post": 3, "summed": range(3, 10), "rho": 0.3}),
    "SC-CLIP, all options": (
        SCCLIP(10, 0, (2, 7), 0.1, beta=0.7, neighbours=3),
        {"pre": 10, "post": 0, "summed": (2, 7), "rho": 0.1, "beta": 0.7, "neighbours": 3},
    ),
}


@pytest.mark.parametrize("size", WINDOW_SIZES)
@pytest.mark.parametrize("name", FORMULAS)
def test_scclip_formula(models, tower, name, size):
    method, options = FORMULAS[name]
    image = sized_image(*size)
    wanted = tower.scclip_features(image.double().numpy(), **options)
    assert_close(features(models[12], image[None], method)[0], wanted)


def test_layers_of_other_depths():
    """ViT-L/14's."""
    assert SCCLIP().layers(24) == (16, 6, (8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18), 0.1)
    assert sorted(SCCLIP().required_blocks(24)) == [7, *range(9, 20)]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("SC-CLIP", "12 or 24 blocks only, but this model has 8; give it pre, post, summed and rho"),
        ({"type": "SC-CLIP", **HALF_DEPTH, "pre": 7}, "can read blocks 0 to 6 of this model, not 7"),
        ({"type": "SC-CLIP", "neighbours": 0}, "neighbours of SC-CLIP must be"),
    ],
)
def test_what_scclip_cannot_be_is_one_clear_line(load, method, message):
    with pytest.raises(UserError, match=message) as error:
        load(8, method=method)
    assert "\n" not in str(error.value)


def test_equal_patches_make_no_nan(models):
    similarity = torch.ones(1, 7, 7) - 1e-7 * torch.rand(1, 7, 7)
    assert softmax_above_mean(similarity).isfinite().all()
    encoder = models[12].image_encoder
    tokens = torch.ones(1, 50, 128)
    context = Context((7, 7), 1, dict.fromkeys(range(12), tokens))
    with torch.inference_mode():
        assert SCCLIP()(encoder.parts((7, 7)), tokens, context).isfinite().all()


def test_scclip_in_half_precision(load, models):
    """Sums of tokens of several blocks exceed what fp16 holds."""
    half, image = ImageEncoder(cast(load(12).image_encoder.visual, "fp16")), sized_image(64, 96)[None]
    with torch.inference_mode():
        got = half(image, [SCCLIP()])[0].numpy()
    assert got.dtype == np.float16
    wanted = features(models[12], image, SCCLIP())
    np.testing.assert_allclose(got, wanted, atol=0.02 * np.abs(wanted).max())

"""NACLIP, RCS and SC-CLIP: against outputs recorded from their releases, and against their formulas in loops.

``release/family.npz`` has, under ``METHOD|setting|HxW|what``, what the authors' code computes in fp32 for one window.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from family_models import HALF_DEPTH, assert_close, features, last_inputs, load, models, tower
from second_encoders import files
from tiny import sized_image

from clearclip import UserError
from clearclip.backbones.casting import cast
from clearclip.backbones.open_clip_tower import ImageEncoder
from clearclip.methods import NACLIP, RCS, SCCLIP, Context, LastBlock, Method, build_method
from clearclip.methods.outliers import outlier_scores, outliers, repair
from clearclip.methods.scclip import softmax_above_mean
from clearclip.results.table_definitions import FAMILY

RECORDED = np.load(Path(__file__).parents[1] / "release" / "family.npz")


SCLIP = LastBlock("qq+kk", residual=True, ffn=True)


#: Pixels of windows: square, wide, one row of patches, 4 patches, a single one.
SIZES = [(64, 64), (48, 80), (16, 96), (32, 32), (16, 16)]


def recorded_method(name: str, setting: str, patches: int) -> Method:
    """The method that a key of the recordings describes."""
    words = setting.split("-")
    if name == "NACLIP":
        keep, strategy = words[1] == "vanilla", words[2]
        if strategy in ("csa", "vanilla"):
            return LastBlock({"csa": "qq+kk", "vanilla": "qk"}[strategy], keep, keep)
        return NACLIP(strategy, float(words[3].removeprefix("std")) if len(words) > 3 else 5.0, keep, keep)
    if name == "ResCLIP":
        base = {"resclip": NACLIP(), "clearclip": LastBlock()}[words[2]]
        return RCS(base) if words[-1] == "rcs" else base
    options = dict(HALF_DEPTH) if words[0] == "L8" else {}
    options |= {"rho": 0.0} if "rescls0" in words else {"beta": 0.2} if "beta0.2" in words else {}
    return SCCLIP(**options, neighbours=8 if patches <= 30 else 30)


@pytest.mark.parametrize("key", [key for key in RECORDED.files if not key.startswith("PAMR")])
def test_recorded(models, key):
    name, setting, size, what = key.split("|")
    height, width = map(int, size.split("x"))
    model, image = models[12 if setting.startswith("L12") else 8], sized_image(height, width)[None]
    method = recorded_method(name, setting, height * width // 256)
    if what == "features":
        assert_close(features(model, image, method)[0].reshape(-1, 64), RECORDED[key])
    elif what == "lof":
        assert_close(outlier_scores(last_inputs(model, image)[-1][:, 1:], method.neighbours)[0].numpy(), RECORDED[key])
    else:
        found = outliers(last_inputs(model, image)[-1][:, 1:], method.neighbours)[0].nonzero().flatten()
        assert found.tolist() == sorted(RECORDED[key].astype(int))


FORMULAS = {
    "NACLIP": (NACLIP(), "naclip_features", {}),
    "NACLIP, all options": (
        NACLIP("naclip", 1.5, residual=True, ffn=False), "naclip_features", {"sigma": 1.5, "residual": True}
    ),
    "nonly": (NACLIP("nonly", 2), "naclip_features", {"strategy": "nonly", "sigma": 2}),
    "kk": (NACLIP("kk", ffn=True), "naclip_features", {"strategy": "kk", "ffn": True}),
    "ClearCLIP + RCS": (RCS(LastBlock()), "rcs_features", {"base": "qq"}),
    "NACLIP + RCS": (RCS("NACLIP", layers=[1, 4]), "rcs_features", {"base": "naclip", "layers": (1, 4)}),
    "SCLIP + RCS": (
        RCS(SCLIP, tau=1.5, lambda_r=0.6), "rcs_features", {"base": "qq+kk", "tau": 1.5, "lambda_r": 0.6}
    ),
    "SC-CLIP": (SCCLIP(), "scclip_features", {"pre": 8, "post": 3, "summed": range(3, 10), "rho": 0.3}),
    "SC-CLIP, all options": (
        SCCLIP(10, 0, (2, 7), 0.1, beta=0.7, neighbours=3),
        "scclip_features", {"pre": 10, "post": 0, "summed": (2, 7), "rho": 0.1, "beta": 0.7, "neighbours": 3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(models, tower, name, size):
    method, formula, options = FORMULAS[name]
    image = sized_image(*size)
    wanted = getattr(tower, formula)(image.double().numpy(), **options)
    assert_close(features(models[12], image[None], method)[0], wanted)


@pytest.mark.parametrize("method", [NACLIP("nonly"), NACLIP(), RCS(NACLIP()), SCCLIP()], ids=lambda one: one.label)
def test_a_batch_is_its_windows_one_at_a_time(models, method):
    images = torch.stack([sized_image(96, 48), 3 * sized_image(96, 48).flip(-1), sized_image(48, 96).mT])
    together = features(models[12], images, method)
    for image, one in zip(images, together, strict=True):
        assert_close(one, features(models[12], image[None], method)[0])


def test_layers_of_other_depths():
    """ViT-L/14's, and the miniature's."""
    assert SCCLIP().layers(24) == (16, 6, (8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18), 0.1)
    assert sorted(SCCLIP().required_blocks(24)) == [7, *range(9, 20)]
    assert RCS().required_blocks(24) == RCS().required_blocks(10) == (5, 6, 7, 8)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ClearCLIP + RCS", "needs at least 10 blocks, but this model has 8"),
        ("SC-CLIP", "12 or 24 blocks only, but this model has 8; give it pre, post, summed and rho"),
        ({"type": "SC-CLIP", **HALF_DEPTH, "pre": 7}, "can read blocks 0 to 6 of this model, not 7"),
        ("GEM + RCS", "GEM has no single one"),
        ("SC-CLIP + RCS", "SC-CLIP has no single one"),
        ({"type": "RCS", "layers": []}, "layers of RCS must be block numbers"),
        ({"type": "RCS", "lambda_r": 2}, "lambda_r of RCS must be a number from 0 to 1"),
        ({"type": "NACLIP", "sigma": 0}, "sigma of NACLIP must be a number from 0.001"),
        ({"type": "NACLIP", "strategy": "gav"}, "unknown strategy of NACLIP 'gav'.*nonly"),
        ({"type": "SC-CLIP", "neighbours": 0}, "neighbours of SC-CLIP must be"),
    ],
)
def test_what_cannot_be_is_one_clear_line(load, method, message):
    with pytest.raises(UserError, match=message) as error:
        load(8, method=method)
    assert "\n" not in str(error.value)


def test_names_and_plain_data_bring_the_method_back():
    for method in (*map(build_method, FAMILY), build_method("SCLIP + RCS"), RCS(NACLIP("kk"))):
        assert build_method(json.loads(json.dumps(method.settings))) == method
        assert json.loads(json.dumps(method.settings)) == method.settings
    assert [build_method(name).label for name in FAMILY] == list(FAMILY)
    assert RCS(NACLIP(), layers=(2, 3)).label == "NACLIP + RCS (layers=2,3)"
    assert build_method("SCLIP + RCS").keeping(False).base == LastBlock("qq+kk")


def test_equal_patches_make_no_outliers_and_no_nan(models):
    equal = torch.randn(1, 1, 128).expand(2, 50, 128) * 30
    assert not outliers(equal, 30).any()
    almost = equal + 1e-5 * torch.randn(2, 50, 128)
    assert outlier_scores(almost, 30).isfinite().all()
    similarity = torch.ones(1, 7, 7) - 1e-7 * torch.rand(1, 7, 7)
    assert softmax_above_mean(similarity).isfinite().all()
    encoder = models[12].image_encoder
    tokens = torch.ones(1, 50, 128)
    context = Context((7, 7), 1, dict.fromkeys(range(12), tokens))
    with torch.inference_mode():
        assert SCCLIP()(encoder.parts((7, 7)), tokens, context).isfinite().all()


def test_an_outlier_among_outliers_stays():
    patches, outlier = torch.randn(1, 6, 4), torch.tensor([[True, True, False, True, True, False]])
    wanted = reference.repaired(patches[0].numpy(), [0, 1, 3, 4], (2, 3))
    np.testing.assert_allclose(repair(patches, outlier, (2, 3))[0].numpy(), wanted, atol=1e-6)
    assert (wanted[0] == patches[0, 0].numpy()).all()


def test_half_precision_does_not_overflow(load, models):
    """Squares of large tokens exceed what fp16 holds; the choice of outliers must not notice."""
    patches = 40 * torch.randn(1, 64, 128, generator=torch.Generator().manual_seed(0)).half()
    assert patches.square().sum(-1).isinf().any()
    torch.testing.assert_close(outlier_scores(patches, 30), outlier_scores(patches.float(), 30))
    half, image = ImageEncoder(cast(load(12).image_encoder.visual, "fp16")), sized_image(64, 96)[None]
    for method in (NACLIP(), NACLIP("nonly"), RCS(), SCCLIP()):
        with torch.inference_mode():
            found = half(image, [method])[0].numpy()
        assert found.dtype == np.float16
        wanted = features(models[12], image, method)
        np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())

"""What all methods have in common: options, labels, refusals, and several in one pass."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_models import as_classes, assert_close, features, load, models, random_text
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from second_encoders import files, guide
from tiny import sized_image

from clearclip import ClearCLIP, UserError
from clearclip.backbones.casting import cast
from clearclip.backbones.open_clip_tower import ImageEncoder
from clearclip.methods import (
    ATTENTIONS,
    GEM,
    NACLIP,
    PEARL,
    RCS,
    SCCLIP,
    SFR,
    LastBlock,
    ProxyCLIP,
    build_method,
)
from clearclip.results.table_definitions import FAMILY


def test_a_batch_is_its_windows_one_at_a_time(load, guide):
    """ProxyCLIP's mean, SFR's maximum and PEARL's R are an image's own."""
    methods = [ProxyCLIP(**guide("dino16")), SFR(NACLIP(), pamr=False), PEARL()]
    model = load(8)
    text = as_classes(random_text(4), [0, 1, 2, 3])
    images = torch.stack([sized_image(96, 48), 3 * sized_image(96, 48).flip(-1)])
    with torch.inference_mode():
        for method, together in zip(methods, model.encode(images, methods, text), strict=True):
            for image, one in zip(images, together, strict=True):
                assert_close(one.numpy(), model.encode(image[None], [method], text)[0][0].numpy())


@pytest.mark.parametrize(
    "method", [NACLIP("nonly"), NACLIP(), RCS(NACLIP()), SCCLIP()], ids=lambda method: method.label
)
def test_a_batch_is_its_windows_one_at_a_time_without_words(models, method):
    images = torch.stack([sized_image(96, 48), 3 * sized_image(96, 48).flip(-1), sized_image(48, 96).mT])
    of_batch = features(models[12], images, method)
    for image, of_image in zip(images, of_batch, strict=True):
        assert_close(of_image, features(models[12], image[None], method)[0])


def test_residual_connection_and_ffn():
    for method in map(build_method, FAMILY):
        plain = method.without_residual_and_ffn()
        assert plain.without_residual_and_ffn() == plain
    last_block = LastBlock("kk")
    assert last_block.with_residual_and_ffn() == LastBlock("kk", residual=True, ffn=True)
    assert last_block.with_residual_and_ffn().without_residual_and_ffn() == last_block
    for method in (SFR(NACLIP()), RCS(NACLIP())):
        base = method.with_residual_and_ffn().base
        assert base == NACLIP(residual=True, ffn=True)
    with pytest.raises(UserError, match=r"^SC-?CLIP has no variant with residual connection and FFN"):
        SCCLIP().with_residual_and_ffn()


def test_classes_with_earlier_names_are_told_the_present_ones():
    with pytest.raises(UserError, match=r"Mine\.keeping is now with_residual_and_ffn\(\) and without_residual_and_ffn"):

        class Mine(LastBlock):
            def keeping(self, residual_and_ffn):
                return self

    with pytest.raises(UserError, match=r"Yours\.guide_features is now second_encoder_features; rename it"):

        class Yours(LastBlock):
            guide_features = "values"


def test_names_and_plain_data_bring_the_method_back():
    for method in (*map(build_method, FAMILY), build_method("SCLIP + RCS"), RCS(NACLIP("kk"))):
        assert build_method(json.loads(json.dumps(method.settings))) == method
        assert json.loads(json.dumps(method.settings)) == method.settings
    assert [build_method(name).label for name in FAMILY] == list(FAMILY)


def test_half_precision(load, guide):
    methods = [PEARL(), SFR(NACLIP(), pamr=False), ProxyCLIP(**guide("dinov2"))]
    half, full = load(8), load(8)
    half.image_encoder, half.precision = ImageEncoder(cast(half.image_encoder.visual, "fp16")), "fp16"
    text, image = as_classes(random_text(4), [0, 1, 2, 3]), sized_image(112, 112)[None]
    with torch.inference_mode():
        pairs = zip(half.encode(image, methods, text), full.encode(image, methods, text), strict=True)
    for found, wanted in pairs:
        assert found.dtype == torch.float16 and found.isfinite().all()
        # A similarity may be on the other side of ProxyCLIP's threshold.
        assert F.cosine_similarity(found.float(), wanted, dim=-1).min() > 0.98


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"type": "PEARL", "alpha": -1}, "alpha of PEARL must be a number from 0 to 100, not -1"),
        ({"type": "PEARL", "svd": 1}, "svd of PEARL must be True or False, not 1"),
        ({"type": "SFR", "base": "MaskCLIP"}, "base of SFR must be one attention with logits .* MaskCLIP has not"),
        ({"type": "SFR", "base": {"type": "NACLIP", "strategy": "nonly"}}, "NACLIP .strategy=nonly. has not"),
        ("GEM + SFR", "GEM has not"),
        ("NACLIP + SFR + SFR", "NACLIP . SFR has not"),
        ("ProxyCLIP + RCS", "ProxyCLIP has no single one"),
        ("ProxyCLIP + ClearCLIP + SFR", "ProxyCLIP has not"),
        ({"type": "ProxyCLIP", "multiple": 0}, "multiple of ProxyCLIP must be a whole number or None from 1, not 0"),
        ({"type": "ProxyCLIP", "guide": "mine"}, "unknown guide 'mine'; choose from dino-vits8, .*dinov2-vitl14-reg"),
        ({"type": "ProxyCLIP", "guide_weights": "none.pth"}, "checkpoint none.pth for dino-vitb8 does not exist"),
    ],
)
def test_what_cannot_be_is_one_clear_line(load, method, message):
    with pytest.raises(UserError, match=message) as error:
        load(12, method=method)
    assert "\n" not in str(error.value)


def test_what_a_method_needs_and_does_not_get_is_said(models):
    for method, needs in ((SFR(), "text"), (ProxyCLIP(), "second encoder")):
        with pytest.raises(UserError, match=f"needs {needs}.* which this call does not give it"):
            models[12].image_encoder(sized_image(32, 32)[None], [method])


def test_the_miniatures_own_options():
    model = ClearCLIP.from_pretrained("miniature", device="cpu")
    options = model.image_encoder.method_options
    assert build_method("NACLIP + RCS + SFR").completed(options).base.layers == (2, 3, 4)
    assert RCS("NACLIP", layers=(1,)).completed(options) == RCS("NACLIP", layers=(1,))
    assert SCCLIP(rho=0.2).completed(options).layers(6) == (4, 1, (1, 2, 3, 4), 0.2)
    results = model.compare(np.zeros((64, 80, 3), np.uint8), ["sky", "tree"], ["ProxyCLIP", "SC-CLIP", "ClearCLIP"])
    assert list(results) == ["ProxyCLIP", "SC-CLIP", "ClearCLIP"]
    chosen = {"RCS": {"lambda_r": 0.4}, "SFR": {"threshold": 0.11, "tau": 1.8}}
    method = build_method("NACLIP + RCS + SFR").with_options(chosen)
    assert method == SFR(RCS(NACLIP(), lambda_r=0.4), 0.11, 1.8)
    assert method.label == "NACLIP + RCS (lambda_r=0.4) + SFR (threshold=0.11, tau=1.8)"


SHARES, FLAGS = st.floats(0, 1), st.booleans()


ATTENTION = st.one_of(
    st.builds(LastBlock, st.sampled_from(list(ATTENTIONS)), st.just(True), FLAGS, st.floats(-2, 2)),
    st.builds(NACLIP, st.sampled_from(["naclip", "kk"]), st.floats(0.5, 9), FLAGS, FLAGS),
    st.builds(PEARL, st.floats(0, 2), st.integers(0, 9), FLAGS, FLAGS, FLAGS),
)


MIXED = st.one_of(ATTENTION, st.builds(RCS, ATTENTION, st.floats(0, 3), SHARES, st.sampled_from([None, [1], (1, 2)])))


LOGITS = MIXED.filter(lambda one: getattr(one, "base", one).has_logits)


ANY_METHOD = st.one_of(
    MIXED,
    st.builds(SFR, LOGITS, SHARES, st.floats(0, 3), SHARES, st.floats(0.5, 9), FLAGS, FLAGS),
    st.builds(ProxyCLIP, st.sampled_from([None, "dino-vits8"]), st.sampled_from([None, "random", "a"]), SHARES, SHARES),
    st.builds(GEM, FLAGS),
    st.builds(SCCLIP, st.integers(0, 3), st.none(), st.sampled_from([None, [1, 2]]), SHARES, SHARES, st.integers(1, 9)),
)


@examples(max_examples=300, deadline=None, derandomize=True, database=None)
@example(one=LastBlock("qq", True, True, 1.0000001), other=LastBlock("qq", True, True, 1.0000002))
@example(one=RCS(NACLIP(sigma=2)), other=RCS(NACLIP(), tau=2.5))
@given(one=ANY_METHOD, other=ANY_METHOD)
def test_labels_tell_methods_apart(one, other):
    """Tables match a run by its method's label: equal ones are equal methods; and plain data brings a method back."""
    assert (one.label == other.label) == (one == other)
    assert build_method(json.loads(json.dumps(one.settings))) == one


def test_methods_of_a_pass_do_not_change_each_other(models):
    """They share projections and attentions; options that differ are told apart."""
    names = ("CLIP", "SCLIP", "ClearCLIP", "NACLIP", "ClearCLIP + RCS", "NACLIP + RCS", "NACLIP + RCS + SFR", "PEARL")
    methods = [*map(build_method, names), NACLIP(sigma=2), NACLIP("nonly"), PEARL(0.3), SFR(NACLIP()), LastBlock("kk")]
    text, image = as_classes(random_text(4), [0, 1, 2, 3]), sized_image(48, 64)[None]
    together = models[12].encode(image, methods, text)
    for method, one in zip(methods, together, strict=True):
        assert_close(one.numpy(), models[12].encode(image, [method], text)[0].numpy())
    assert len({one.sum().item() for one in together}) == len(methods)

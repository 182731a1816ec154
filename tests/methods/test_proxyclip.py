"""ProxyCLIP: against outputs recorded from its release, and against its formula in loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from family_models import (
    LONG_WINDOW_SIZES,
    as_classes,
    assert_close,
    features,
    load,
    models,
    parse_key,
    random_text,
    recordings,
    tower,
)
from second_encoders import files, guide
from tiny import sized_image

from clearclip.methods import (
    NACLIP,
    PEARL,
    ProxyCLIP,
)
from clearclip.methods.proxyclip import proxy_attention

RECORDED = recordings("proxyclip")


@pytest.mark.parametrize("key", [key for key in RECORDED.files if not key.startswith("segmentor")])
def test_recorded_proxyclip(models, guide, key):
    words, size, what = parse_key(key)
    beta, gamma = (1.0, 6.0) if "gamma6" in words else (1.2, 3.0)
    method = ProxyCLIP(**guide(words[0]), beta=beta, gamma=gamma)
    model, image = models[8], sized_image(*size)[None]
    with torch.inference_mode():
        second = model.second_encoder(model.completed(method))(model.denormalize(image))
        found = {
            "vfm": second[0].flatten(0, 1),
            "attn": proxy_attention(second[0].flatten(0, 1), beta, gamma),
            "features": model.encode(image, [method])[0][0].flatten(0, 1),
        }
    assert_close(found[what].numpy(), RECORDED[key])


@pytest.mark.parametrize("key", [key for key in RECORDED.files if key.startswith("segmentor")])
def test_recorded_images_by_proxyclip(models, guide, key):
    (_, name, tag, crop, stride), size, what = parse_key(key)
    original = {"pad": (75, 101)}.get(tag, size)
    windows = {"slide_crop": int(crop[4:]), "slide_stride": int(stride[6:])}
    thd = float(what.removeprefix("labels-thd")) if what.startswith("labels") else 0.0
    model = models[8]
    how = replace(model.settings, method=ProxyCLIP(**guide(name)), logit_scale=40, prob_thd=thd, **windows)
    text, image = as_classes(random_text(8), [0, 0, 1, 2, 2, 3, 4, 5]), sized_image(*size)
    if what.startswith("labels"):
        (((labels, _),),) = model.predict([image], text, [original], settings=how)
        np.testing.assert_array_equal(labels.numpy(), RECORDED[key])
    else:
        ((scores,),) = model.similarities([image], text, settings=how)
        assert_close(scores.dense(original)[::3, ::3].permute(2, 0, 1).numpy(), RECORDED[key])


@pytest.mark.parametrize("size", LONG_WINDOW_SIZES)
@pytest.mark.parametrize("name", ["dino8", "dinov2reg"])
def test_proxyclip_formula(models, tower, guide, name, size):
    """Each encoder on its own grid, also in windows that are not square."""
    image, method = sized_image(*size), ProxyCLIP(**guide(name), beta=1.1, gamma=4)
    model = models[12]
    (got,) = model.encode(image[None], [method])
    with torch.inference_mode():
        second = model.second_encoder(model.completed(method))(model.denormalize(image[None]))[0]
    patch = 8 if name == "dino8" else 14
    assert got.shape[1:3] == second.shape[:2] == (size[0] // patch, size[1] // patch)
    assert_close(got[0].numpy(), tower.proxy_features(image.double().numpy(), second.double().numpy(), 1.1, 4))


def test_a_window_without_positive_entries_is_defined():
    """All features nearly alike, so that beta times the mean exceeds even the diagonal: each patch sees itself."""
    second = torch.ones(9, 8) + 1e-3 * torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    assert_close(proxy_attention(second, 1.2, 3).numpy(), np.eye(9))


def test_windows_are_padded_only_for_methods_that_ask(load, guide, monkeypatch):
    """Windows of 48 pixels: of 56 for ProxyCLIP; the others get what they get alone, in one pass."""
    proxy, other = ProxyCLIP(**guide("dino8")), NACLIP()
    model = load(8, slide_crop=48, slide_stride=32)
    image, text, seen = sized_image(60, 80), as_classes(random_text(4), [0, 1, 2, 3]), []
    (alone,) = model.similarities([image], text, [other])
    forward = model.image_encoder.forward
    monkeypatch.setattr(
        model.image_encoder,
        "forward",
        lambda images, methods, *rest: seen.append((images.shape[2:], len(methods))) or forward(images, methods, *rest),
    )
    (pairs,) = model.similarities([image], text, [other, proxy, PEARL()])
    assert sorted(seen) == [((48, 48), 2), ((56, 56), 1)]
    torch.testing.assert_close(pairs[0].scores, alone[0].scores)
    assert pairs[0].grid == alone[0].grid
    assert (pairs[0].grid.rows.cells, pairs[1].grid.rows.cells) == (3, 7)
    seen.clear()
    model.settings = replace(model.settings, slide_crop=56)  # for both 64 and 56: neither is the other's multiple
    model.similarities([image], text, [other, proxy])
    assert sorted(seen) == [((56, 56), 1), ((64, 64), 1)]
    seen.clear()
    model.settings = replace(model.settings, slide_crop=112, slide_stride=56)  # a multiple of both
    model.similarities([sized_image(112, 112)], text, [other, proxy])
    assert seen == [((112, 112), 2)]


def test_whole_images_are_seen_by_each_encoder_to_its_last_patch(load, guide):
    method = ProxyCLIP(**guide("dino8"))
    model, image = load(8, method=method, slide_crop=0), sized_image(120, 110)
    ((scores,),) = model.similarities([image], as_classes(random_text(4), [0, 1, 2, 3]))
    assert scores.scores.shape == (15, 13, 4)
    assert scores.grid.rows.weights(120, "cpu").shape == (120, 15)


def test_random_second_encoders_are_the_same_every_time(load, guide):
    """And their weights are part of what a method is known by."""
    method = ProxyCLIP(guide(name := "dino16")["guide"], "random")
    image = sized_image(64, 64)[None]
    first, second = (load(8, method=method).encode(image, [method])[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    other = load(8, method={"type": "ProxyCLIP", **guide(name)})
    assert other.method == ProxyCLIP(**guide(name)) != method
    assert other.settings.chosen_method.settings["guide_weights"].endswith("dino16.pth")

"""SFP: against outputs recorded from its release, and against its formula in loops.

``release/sfp.npz`` has, under ``WIN|setting|HxW|what``, what the authors' code computes in fp32 for one window, and
under ``FULL|setting|HxW|what`` for whole images.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from family_models import (
    HALF_DEPTH,
    WINDOW_SIZES,
    as_classes,
    assert_close,
    features,
    last_inputs,
    load,
    models,
    recordings,
    tower,
)
from tiny import sized_image

from clearclip.methods import SFP, Context, build_method
from clearclip.windows import PAMR

RECORDED = recordings("sfp")
#: The present release's; v1 and v2 are earlier ones, and "release" is one that replaces wrong patches.
WINDOWS = [
    key
    for key in RECORDED.files
    if key.startswith("WIN") and not {"v1", "v2", "release"} & {*key.split("|")[1].split("-")}
]
#: Window, stride and original size of the whole images; and the pixels that may be labelled otherwise.
CASES = {"whole": (0, 0, (64, 64)), "wide": (0, 0, (80, 120)), "slide": (96, 48, (112, 176))}
PIXELS = 5


def recorded_method(setting: str) -> SFP:
    """The method that a key of the recordings describes."""
    words = setting.split("-")
    options = dict(HALF_DEPTH) if words[0] == "L8" else {}
    for word in words[1:]:
        if word.startswith("rescls"):
            options["rho"] = float(word.removeprefix("rescls"))
        elif word.startswith("factor"):
            options["class_factor"] = float(word.removeprefix("factor")) / 0.3
        else:
            options["detector"] = word.lower()
    return SFP(**options)


def recorded_model(setting: str, models):
    return models[int(setting.split("-")[0].removeprefix("L"))]


@pytest.mark.parametrize("key", [key for key in WINDOWS if key.endswith("|features")])
def test_recorded_features(models, key):
    _, setting, size, _ = key.split("|")
    image = sized_image(*map(int, size.split("x")))[None]
    assert_close(
        features(recorded_model(setting, models), image, recorded_method(setting))[0].reshape(-1, 64), RECORDED[key]
    )


@pytest.mark.parametrize("key", [key for key in WINDOWS if key.endswith("|outliers")])
def test_recorded_outliers(models, key):
    _, setting, size, _ = key.split("|")
    model, image = recorded_model(setting, models), sized_image(*map(int, size.split("x")))[None]
    encoder, method = model.image_encoder, recorded_method(setting)
    inputs = last_inputs(model, image)
    context = Context(encoder.grid(image), 1, dict(enumerate(inputs)))
    with torch.inference_mode():
        outliers = method.outliers(encoder.parts(context.grid_size), inputs[-1], context)[0]
    assert outliers.nonzero().flatten().tolist() == sorted(RECORDED[key].astype(int))


@pytest.mark.parametrize("key", [key for key in RECORDED.files if key.startswith("FULL") and not key.endswith("|text")])
def test_recorded_images(models, key):
    """Similarities, and labels and probabilities with synonyms, scales, thresholds and dropped classes."""
    _, setting, size, what = key.split("|")
    depth, case, *words = setting.split("-")
    crop, stride, original = CASES[case]
    model, image = recorded_model(depth, models), sized_image(*map(int, size.split("x")))
    numbers = dict.fromkeys(("thd", "area", "pamr"), 0.0) | {"scale": 40.0}
    for word in words:
        for name in numbers:
            if word.startswith(name):
                numbers[name] = float(word.removeprefix(name))
    text = torch.from_numpy(RECORDED[f"FULL|{depth}-{case}|{size}|text"])
    text = as_classes(text, list(range(8)) if "one" in words else [0, 0, 1, 2, 3, 3, 3, 4])
    settings = replace(
        model.settings,
        method=recorded_method(depth),
        slide_crop=crop,
        slide_stride=stride,
        incomplete_windows="cut",
        logit_scale=numbers["scale"],
        prob_thd=numbers["thd"],
        area_thd=numbers["area"],
        post="pamr" if numbers["pamr"] else None,
    )
    ((scores,),) = model.score_maps([image], [original], text, settings=settings)
    if what == "cos_every3":
        similarities = scores.dense(original)[::3, ::3].permute(2, 0, 1).numpy()
        np.testing.assert_allclose(similarities, RECORDED[key], rtol=0, atol=2e-6)
    elif what == "probs_every3":
        probabilities = settings.readout.probabilities(scores, original, text.word_to_class)
        np.testing.assert_allclose(probabilities[:, ::3, ::3].numpy(), RECORDED[key], rtol=0, atol=1e-4)
    else:
        labels = settings.readout.labels(scores, original, text.word_to_class).numpy()
        assert (labels != RECORDED[key]).sum() <= PIXELS
        assert len(np.unique(labels)) > 1


OPTIONS = {
    "as released": {},
    "l2": {"detector": "l2"},
    "all options": {
        "pre": 10, "post": 0, "summed": (2, 7), "rho": 0.2, "beta": 0.7, "neighbours": 3, "detector": "lof",
    },
    "few outliers": {"rho": 0.15, "class_factor": 4.0},
}  # fmt: skip


@pytest.mark.parametrize("size", WINDOW_SIZES)
@pytest.mark.parametrize("name", OPTIONS)
def test_formula(models, tower, name, size):
    image = sized_image(*size)
    wanted = tower.sfp_features(image.double().numpy(), **OPTIONS[name])
    assert_close(features(models[12], image[None], SFP(**OPTIONS[name]))[0], wanted)


def test_a_batch_is_its_windows_one_at_a_time(models):
    images = torch.stack([sized_image(96, 48), 3 * sized_image(96, 48).flip(-1)])
    together = features(models[12], images, SFP())
    for image, expected in zip(images, together, strict=True):
        assert_close(features(models[12], image[None], SFP())[0], expected)


def test_layers_are_those_of_the_base_model():
    """As in the release, whatever the depth; PAMR is an option of the model, not of the method."""
    assert SFP().layers(24) == SFP().layers(12) == (8, 3, (3, 4, 5, 6, 7, 8, 9), 0.3)
    assert max(SFP().required_blocks(24)) == 22
    assert build_method("SFP").label == "SFP"
    assert build_method({"type": "SFP", "rho": 0.1}).label == "SFP (rho=0.1)"
    assert PAMR().reach == 160

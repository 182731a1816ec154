"""LPOSS and LPOSS+: against outputs recorded from their release, and against their formulas in loops.

``release/lposs.npz`` has, under ``ENC-cropC-strideS-kK[-ownwords]|HxW[|plus]|what``, what the authors' code computes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from family_models import as_classes, assert_close, load, models, random_text, recordings
from second_encoders import files, guide
from tiny import sized_image

from clearclip import ClearCLIP, UserError
from clearclip.methods import LPOSS, build_method, lposs
from clearclip.windows import ImageContext, LPOSSPlus, ScoreMap, lposs_plus
from clearclip.windows.lab_colours import lab

RECORDED = recordings("lposs")
#: Original sizes where they are not the image's.
ORIGINALS = {"dino16-crop64|96x144": (90, 135), "dino16-crop64|112x150": (75, 101), "dino8-crop64|96x144": (90, 135)}
CLASSES = [0, 0, 0, 1, 2, 3, 4, 5]
WHOLE = [key for key in RECORDED.files if "-crop" in key]


def recorded_image(model: ClearCLIP, size: str) -> torch.Tensor:
    """The image of a recording, normalised for CLIP."""
    rgb = sized_image(*map(int, size.split("x"))).sigmoid()
    return (rgb * 255 - model.mean) / model.std


def close(got: np.ndarray, key: str, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(got, RECORDED[key], rtol=0, atol=tolerance * np.abs(RECORDED[key]).max())


@pytest.mark.parametrize("key", [key for key in RECORDED.files if key.startswith("window")])
def test_recorded_windows(models, guide, key):
    """Both encoders' features of one window."""
    name, size, what = key.split("|")
    model = models[8]
    method = LPOSS(**guide(name.partition("-")[2] or "dino16"))
    image = recorded_image(model, size)[None]
    if what == "dino":
        second = model._second_features(image, "cut", [method])[method.second_encoder_key]
        close(F.normalize(second, dim=-1).flatten(0, 2).numpy(), key)
    else:
        close(F.normalize(model.encode(image, [method])[0], dim=-1).flatten(0, 2).numpy(), key)


class Stages:
    """What the stages of LPOSS see and give, on the way from an image to its map."""

    def __init__(self, model: ClearCLIP, key: str, guide):
        setting, size = key.split("|")[:2]
        encoder, crop, stride, neighbours, *_ = setting.split("-")
        self.size = tuple(map(int, size.split("x")))
        self.original = ORIGINALS.get(f"{encoder}-{crop}|{size}", self.size)
        self.method = LPOSS(**guide(encoder), neighbours=int(neighbours[1:]))
        self.settings = replace(
            model.settings,
            slide_crop=int(crop.removeprefix("crop")),
            slide_stride=int(stride.removeprefix("stride")),
            post="lposs+" if "plus" in key.split("|") else None,
            softmax=False,
            method=self.method,
        )
        text = random_text(8)
        if "ownwords" in setting:
            features = torch.from_numpy(RECORDED[f"{setting.removesuffix('-ownwords')}|{size}|clip"])
            rows = features[[index * len(features) // 8 for index in range(8)]]
            text = F.normalize(rows - features.mean(dim=0), dim=-1)
        self.text = as_classes(text, CLASSES)
        self.image = recorded_image(model, size)
        ((self.scores,),) = model.score_maps([self.image], [self.original], self.text, settings=self.settings)

    def read(self, what: str) -> np.ndarray:
        arguments = (self.scores, self.original, self.text.word_to_class)
        if what == "labels":
            return self.settings.readout.labels(*arguments).numpy()
        return self.settings.readout.probabilities(*arguments)[:, ::5, ::5].numpy()


@pytest.mark.parametrize("key", [key for key in WHOLE if key.endswith(("labels", "masks_every5"))])
def test_recorded_images(models, guide, key):
    what = key.split("|")[-1]
    got = Stages(models[8], key, guide).read(what)
    if what == "labels":
        np.testing.assert_array_equal(got, RECORDED[key])
    else:
        close(got, key)


@pytest.mark.parametrize(
    "key", [key for key in WHOLE if key.split("|")[-1] in ("Y", "solution", "graph", "graph_every4", "dino")]
)
def test_recorded_stages(models, guide, monkeypatch, key):
    """Similarities, the graph and its solution, patches of windows row by row."""
    seen = {}
    graph, join = lposs.neighbour_graph, LPOSS.join

    def watched_join(self, windows, grid, context):
        seen["Y"] = windows.flatten(0, 2)
        seen["dino"] = F.normalize(context.features["second encoder"].flatten(0, 2), dim=-1)
        # As if a post-processing followed, so that a class's words keep their own scores.
        return join(self, windows, grid, replace(context, has_post_processing=True))

    def watched_graph(*arguments):
        weights = graph(*arguments)
        seen["graph"] = weights.to_dense()
        return weights

    monkeypatch.setattr(LPOSS, "join", watched_join)
    monkeypatch.setattr(lposs, "neighbour_graph", watched_graph)
    what = key.split("|")[-1]
    stages = Stages(models[8], key, guide)
    grid = stages.scores.grid
    if what == "solution":
        windows = stages.scores.scores.unflatten(0, (-1, grid.rows.cells)).unflatten(2, (-1, grid.columns.cells))
        close(windows.permute(0, 2, 1, 3, 4).flatten(0, 3).numpy(), key)
    elif what.startswith("graph"):
        close(seen["graph"][:: 4 if what.endswith("4") else 1].numpy(), key)
    else:
        close(seen[what].numpy(), key)


@pytest.mark.parametrize("key", [key for key in WHOLE if key.endswith("plus|weights")])
def test_recorded_pixel_weights(models, key):
    """Before they are divided by the degrees; in the solutions below the rest is seen."""
    size = key.split("|")[1]
    pairs = RECORDED[key.replace("weights", "pairs")].astype(int)
    colours = lab(recorded_image(models[8], size).mul(models[8].std).add(models[8].mean) / 255)
    colours = (colours / torch.tensor([100, 128, 128])[:, None, None]).flatten(1)
    weights = torch.exp(-(colours[:, pairs[0]] - colours[:, pairs[1]]).norm(dim=0) / 0.01)
    close(weights.numpy(), key, 1e-4)


@pytest.mark.parametrize("key", [key for key in WHOLE if key.endswith("solution_every37")])
def test_recorded_pixel_solutions(models, guide, monkeypatch, key):
    """Before the largest of a class's words is taken."""
    monkeypatch.setattr(lposs_plus, "spread_class_maxima", lambda scores, word_to_class: scores)
    stages = Stages(models[8], key, guide)
    pixels = stages.scores.scores.flatten(0, 1)[::37]
    close(pixels.numpy(), key)


@pytest.mark.parametrize("neighbours", [4, 400])
@pytest.mark.parametrize("size", [(64, 64), (80, 107), (40, 50)])
def test_formula(models, guide, size, neighbours):
    """The graph and ten steps in loops, on windows that overlap, are shifted back or extended."""
    model = models[8]
    method = LPOSS(**guide("dino8"), neighbours=neighbours, gamma=2.0, sigma=0.02, alpha=0.9, steps=7)
    settings = replace(model.settings, slide_crop=48, slide_stride=32, method=method)
    image = sized_image(*size)
    ((scores,),) = model.similarities([image], as_classes(random_text(4), [0, 1, 2, 3]), settings=settings)
    black = -model.mean / model.std
    nodes, places, y = [], [], []
    for top, left, window in reference.windows(image.numpy(), 48, 32):
        window = torch.from_numpy(window)
        extended = black.expand(3, *(-(-side // 16) * 16 for side in window.shape[1:])).clone()
        extended[:, : window.shape[1], : window.shape[2]] = window
        rgb = torch.zeros(3, *(-(-side // 8) * 8 for side in window.shape[1:]))
        rgb[:, : window.shape[1], : window.shape[2]] = model.denormalize(window)
        with torch.inference_mode():
            second = model.second_encoder(method)(rgb[None], "values")[0]
            features = F.normalize(model.encode(extended[None], [method])[0], dim=-1).permute(0, 3, 1, 2)
        resized = F.normalize(
            F.interpolate(features, size=second.shape[:2], mode="bilinear")[0].permute(1, 2, 0), dim=-1
        )
        for row in range(second.shape[0]):
            for column in range(second.shape[1]):
                nodes.append(second[row, column].double().numpy())
                places.append((top + 8 * row, left + 8 * column))
                y.append((resized[row, column] @ random_text(4).T).double().numpy())
    wanted = reference.lposs(np.array(nodes), places, np.array(y), neighbours, 2.0, 0.02, 0.9, 7)
    grid = scores.grid
    windows = scores.scores.unflatten(0, (-1, grid.rows.cells)).unflatten(2, (-1, grid.columns.cells))
    got = windows.permute(0, 2, 1, 3, 4).flatten(0, 3).numpy()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_names_and_refusals(load):
    assert build_method("LPOSS").label == build_method("MaskCLIP + LPOSS").label == "LPOSS"
    assert build_method("ClearCLIP + LPOSS").label == "ClearCLIP + LPOSS"
    assert build_method("MaskCLIP + ClearCLIP + LPOSS").label == "MaskCLIP + ClearCLIP + LPOSS"
    assert build_method("LPOSS").completed({}).guide == "dino-vitb16"
    with pytest.raises(UserError, match="base of LPOSS must be a method without a second encoder, which ProxyCLIP has"):
        load(8, method="ProxyCLIP + LPOSS")
    with pytest.raises(UserError, match="neighbours of LPOSS must be a whole number from 1, not 0"):
        load(8, method={"type": "LPOSS", "neighbours": 0})

"""PAMR: against outputs recorded from its release, and against its formula in loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from family_models import assert_close, features, load
from second_encoders import files
from tiny import sized_image

from clearclip.windows import ImageContext, Readout, ScoreMap, WindowGrid, pamr

RECORDED = np.load(Path(__file__).parents[1] / "release" / "family.npz")


def refined(image, maps):
    """PAMR of maps (K, H, W)."""
    return pamr.NeighbourWeights(image, (8, 16)).refine(maps.permute(1, 2, 0), 10).permute(2, 0, 1)


def test_recorded_pamr():
    (key,) = (key for key in RECORDED.files if key.startswith("PAMR"))
    dense = F.normalize(torch.from_numpy(RECORDED["NACLIP|L8-reduced-naclip-std5|64x64|features"]), dim=-1)
    text = F.normalize(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    logits = F.interpolate((dense @ text.T).T.view(1, 8, 4, 4), size=(64, 64), mode="bilinear")[0]
    assert_close(refined(sized_image(64, 64), logits).numpy(), RECORDED[key])


@pytest.mark.parametrize("size", [(23, 31), (1, 40), (50, 7)])
def test_pamr_formula(size):
    image, maps = sized_image(*size), torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    wanted = reference.pamr(maps.double().numpy(), image.double().numpy())
    assert_close(refined(image, maps).numpy(), wanted)


@pytest.mark.parametrize(("pixels", "at_once"), [(1, 8), (2 << 20, 1), (1, 1)])
def test_labels_with_pamr(monkeypatch, pixels, at_once):
    """In bands and few words at a time, the labels are those of all words at full size."""
    size = (400, 60)
    grid = WindowGrid.of(size, 48, 24, (16, 16))
    shape = (len(grid.rows.starts) * grid.rows.cells, len(grid.columns.starts) * grid.columns.cells, 5)
    similarity = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    words, image = torch.tensor([0, 0, 1, 2, 2]), sized_image(*size)
    logits = grid.rows.weights(size[0], "cpu") @ similarity.permute(2, 0, 1) @ grid.columns.weights(size[1], "cpu").T
    probabilities = (50 * refined(image, logits)).softmax(dim=0)
    wanted = torch.stack([probabilities[words == label].amax(dim=0) for label in range(3)])
    monkeypatch.setattr(pamr, "PIXELS_AT_ONCE", pixels)
    monkeypatch.setattr(pamr, "WORDS_AT_ONCE", at_once)
    monkeypatch.setattr(pamr, "MAP_BYTES", {"cpu": 1})
    scores = pamr.PAMR()(ScoreMap(similarity, grid), ImageContext(image, size, torch.ones(5, 8), words))
    torch.testing.assert_close(Readout(50).probabilities(scores, size, words), wanted, atol=1e-4, rtol=0)
    for threshold in (0.0, 0.5):
        expected = wanted.argmax(dim=0).masked_fill(wanted.amax(dim=0) < threshold, 0)
        found = Readout(50, threshold).labels(scores, size, words)
        assert (found != expected).float().mean() < 1e-3
        assert len(found.unique()) == 3


def test_segment_with_pamr(load):
    """What segment() gives is PAMR by the image itself; probabilities belong to the labels; it is another run."""
    model, rng = load(8, post="pamr", short_side=None, slide_crop=64, slide_stride=32), np.random.default_rng(0)
    photo = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    found = model.segment(photo, ["sky", "hill | mountain", "grass"])
    image, text = model.normalize(photo), model.encode_text(["sky", "hill | mountain", "grass"])
    ((scores,),) = model.similarities([image], text)
    size = photo.shape[:2]
    refined_scores = pamr.PAMR()(scores, ImageContext(image, size, text.features, text.word_to_class))
    np.testing.assert_array_equal(found.labels, Readout().labels(refined_scores, size, text.word_to_class))
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0), found.labels)
    assert (found.labels != Readout().labels(scores, size, text.word_to_class).numpy()).any()
    (((labels, _),),) = model.predict([image], text, [photo.shape[:2]])
    np.testing.assert_array_equal(found.labels, labels)
    assert model.settings.facts()["post"] == "pamr"

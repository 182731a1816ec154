"""How windows become a map: what is averaged, and what is done about windows that are no multiple of the patch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F

from clearclip import ClearCLIP, UserError
from clearclip.windows import ImageContext, Readout, ScoreMap, WindowGrid, join_windows, score_map

PATCH = 8
SIZES = [(64, 96), (75, 101), (40, 50), (64, 64)]


@pytest.fixture(scope="module")
def model(tiny_name):
    return ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=44, slide_stride=20)


@pytest.fixture(scope="module")
def text(model):
    return model.encode_text(["sky | heaven", "tree", "horse"])


def features(model: ClearCLIP, window: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return model.image_encoder(torch.from_numpy(window)[None].float(), [model.method])[0]


def image_of(size: tuple[int, int]) -> torch.Tensor:
    coarse = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(sum(size)))
    return F.interpolate(coarse, size=size, mode="bilinear")[0]


def similarity_maps(model, text, image, incomplete):
    """(top, left, similarities (words, h, w) of a window's pixels), window by window."""
    for top, left, window in reference.windows(image.numpy(), 44, 20):
        height, width = window.shape[1:]
        if incomplete == "stretched":
            sides = [-(-side // PATCH) * PATCH for side in (height, width)]
            window = F.interpolate(torch.from_numpy(window)[None], size=sides, mode="bicubic")[0].numpy()
        if incomplete == "extended":
            black = (-model.mean / model.std).numpy()
            extended = np.broadcast_to(black, (3, -(-height // PATCH) * PATCH, -(-width // PATCH) * PATCH)).copy()
            extended[:, :height, :width] = window
            window = extended
        similarity = F.normalize(features(model, window), dim=-1) @ text.features.T
        yield top, left, F.interpolate(similarity.permute(0, 3, 1, 2), size=(height, width), mode="bilinear")[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("joined_by", ["similarities", "probabilities"])
@pytest.mark.parametrize("incomplete", ["stretched", "cut", "extended"])
def test_windows_against_loops(model, text, size, joined_by, incomplete):
    image, original = image_of(size), (size[0] + 13, size[1] - 7)
    settings = replace(model.settings, incomplete_windows=incomplete, windows_joined_by=joined_by, logit_scale=30.0)
    ((scores,),) = model.score_maps([image], [original], text, settings=settings)
    total, count = torch.zeros(4, *size), torch.zeros(size)
    for top, left, similarity in similarity_maps(model, text, image, incomplete):
        place = (slice(top, top + similarity.shape[1]), slice(left, left + similarity.shape[2]))
        if joined_by == "probabilities":
            similarity = (30 * similarity).softmax(dim=0)
        total[(slice(None), *place)] += similarity
        count[place] += 1
    wanted = F.interpolate((total / count)[None], size=original, mode="bilinear")[0]
    torch.testing.assert_close(scores.dense(original).permute(2, 0, 1), wanted, atol=1e-5, rtol=0)
    probabilities = wanted if joined_by == "probabilities" else (30 * wanted).softmax(dim=0)
    by_class = torch.stack([probabilities[:2].amax(dim=0), probabilities[2], probabilities[3]])
    got = settings.readout.probabilities(scores, original, text.word_to_class)
    torch.testing.assert_close(got, by_class, atol=1e-5, rtol=0)
    labels = replace(settings.readout, prob_thd=0.4).labels(scores, original, text.word_to_class)
    expected = by_class.argmax(dim=0).masked_fill(by_class.amax(dim=0) < 0.4, 0)
    assert (labels != expected).float().mean() < 0.01


def test_padded_windows_differ_from_the_others(model, text):
    """Otherwise the tests above could not tell them apart."""
    image, maps = image_of((75, 101)), []
    for incomplete in ("padded", "stretched", "cut", "extended"):
        settings = replace(model.settings, incomplete_windows=incomplete)
        ((scores,),) = model.similarities([image], text, settings=settings)
        maps.append(scores.dense((75, 101)))
    for index, scores in enumerate(maps):
        assert all((scores - other).abs().max() > 1e-3 for other in maps[:index])


@pytest.mark.parametrize("tile_bytes", [score_map.TILE_BYTES["cpu"], 1])
def test_probabilities_are_read_in_tiles(tile_bytes, monkeypatch):
    """Row by row they are the same, and so are blocks, bands and one device after the other."""
    monkeypatch.setitem(score_map.TILE_BYTES, "cpu", tile_bytes)
    grid = WindowGrid.of((30, 37), 16, 8, (4, 4))
    windows = torch.randn(grid.count, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    context = ImageContext(torch.zeros(3, 30, 37), (41, 29), torch.eye(5), torch.arange(5), logit_scale=3.0)
    scores = join_windows(windows, grid, replace(context, windows_joined_by="probabilities"))
    dense = scores.dense((41, 29))
    torch.testing.assert_close(dense.sum(dim=-1), torch.ones(41, 29))
    torch.testing.assert_close(scores.band((41, 29), slice(3, 9), slice(1, 3)), dense[3:9, :, 1:3])
    pooled = scores.to("cpu").pooled((41, 29), (4, 5))
    blocks = dense[:40, :25].double().unflatten(0, (-1, 4)).unflatten(2, (-1, 5)).mean(dim=(1, 3))
    torch.testing.assert_close(pooled, blocks)
    plain = join_windows(windows, grid, context)
    torch.testing.assert_close(plain.pooled((41, 29), (4, 5)).float(), pooled_by_hand(plain))


def pooled_by_hand(scores: ScoreMap) -> torch.Tensor:
    return scores.dense((41, 29))[:40, :25].unflatten(0, (-1, 4)).unflatten(2, (-1, 5)).mean(dim=(1, 3))


def test_post_processings_read_joined_probabilities(model, text):
    """PAMR and TLP after a softmax in each window: probabilities stay such."""
    image = image_of((64, 80))
    for post in ("pamr", "tlp"):
        settings = replace(model.settings, windows_joined_by="probabilities", post=post, logit_scale=20.0)
        ((prediction,),) = model.predict([image], text, [(50, 61)], keep_probabilities=True, settings=settings)
        assert prediction.probabilities.min() >= 0 and prediction.probabilities.max() <= 1.0001
        assert prediction.labels.shape == (50, 61)


def test_unknown_ways_are_refused(tiny_name):
    for option, value in (("windows_joined_by", "mean"), ("incomplete_windows", "torn"), ("whole_image_resize", 2)):
        with pytest.raises(UserError, match=f"unknown {option} .* choose from"):
            ClearCLIP.from_pretrained(tiny_name, device="cpu", **{option: value})


@pytest.mark.parametrize("shares", [(0.05, 0.3), (0.2, 0.2), (0.0, 0.9)])
def test_small_classes_are_dropped(shares):
    """area_thd in loops: a class stays where it covers more than the share of all that is not class 0."""
    generator = torch.Generator().manual_seed(1)
    scores = ScoreMap.of_cells(0.1 * torch.randn(6, 7, 6, generator=generator))
    word_to_class, size = torch.tensor([0, 0, 1, 2, 2, 3]), (31, 40)
    area_thd, prob_thd = shares
    readout = Readout(40.0, prob_thd, area_thd)
    by_word = (40 * scores.dense(size)).softmax(dim=-1).numpy()
    probabilities = np.zeros((4, *size))
    for word, label in enumerate(word_to_class.tolist()):
        probabilities[label] = np.maximum(probabilities[label], by_word[..., word])
    wanted = reference.dropped(probabilities, area_thd)
    np.testing.assert_allclose(readout.probabilities(scores, size, word_to_class).numpy(), wanted, atol=1e-5)
    labels = readout.labels(scores, size, word_to_class).numpy()
    assert (labels != reference.labels(wanted, prob_thd)).sum() <= 2

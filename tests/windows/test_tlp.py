"""TLP: against outputs recorded from its release, and against its formula in loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from family_models import as_classes, features, load, models, random_text
from second_encoders import files
from tiny import sized_image
from torch import Tensor

from clearclip.windows import ImageContext, ScoreMap, WindowGrid, tlp

RELEASE = Path(__file__).parents[1] / "release"


PEARLS, SFRS, PROXIES = (np.load(RELEASE / f"{name}.npz") for name in ("pearl", "sfr", "proxyclip"))


def parse(key: str) -> tuple[list[str], tuple[int, int], str]:
    setting, size, what = key.split("|")[-3:]
    height, width = map(int, size.split("x"))
    return setting.split("-"), (height, width), what


def tlp_input(words: int, size: tuple[int, int], amplitude: float) -> Tensor:
    """The recordings' cosines, (words, H, W)."""
    rng = np.random.default_rng(words * 1000000 + size[0] * 1000 + size[1])
    coarse = rng.standard_normal((1, words, size[0] // 8 + 2, size[1] // 8 + 2)).astype(np.float32)
    return F.interpolate(torch.from_numpy(coarse), size=size, mode="bilinear")[0] * amplitude


def smoothed(z: Tensor, image: Tensor, text: Tensor, cells: int) -> ScoreMap:
    """TLP of similarities (words, H, W)."""
    size = tuple(image.shape[1:])
    context = ImageContext(image, size, text, torch.arange(len(text)))
    return tlp.TLP(cells)(ScoreMap(z.permute(1, 2, 0), WindowGrid.of(size, 0, 0, (1, 1))), context)


@pytest.mark.parametrize("setting", sorted({key.rpartition("|")[0] for key in PEARLS.files if key.startswith("TLP")}))
def test_recorded_tlp(setting):
    kind, (words, cells, amplitude), size = setting.split("|")[0], *parse(setting + "|")[:2]
    z = tlp_input(int(words[1:]), size, float(amplitude[3:]))
    text, image = random_text(len(z)), sized_image(*size)
    smooth = smoothed(z, image, text, int(cells[4:]))
    out = F.interpolate(smooth.scores.double().permute(2, 0, 1)[None], size=size, mode="bilinear")[0]
    assert [smooth.grid.rows.cells, smooth.grid.columns.cells] == list(smooth.scores.shape[:2])
    step = [max(1, round(length / int(cells[4:]))) for length in size]
    pooled = [F.avg_pool2d(part.double()[None], step)[0] for part in (z, image)]
    data, across, down = tlp.linear_system(pooled[0].permute(1, 2, 0), pooled[1], text.double())
    found = {"sdiag": tlp.word_shares(text), "C": data, "wh": across, "wv": down, "out": out}
    for key in (key for key in PEARLS.files if key.startswith(setting + "|")):
        what, _, thinned = key.split("|")[-1].partition("_")
        got = found[what][..., ::3, ::3] if thinned else found[what]
        # In fp32 the release's own rounding shows.
        tolerance = 1e-6 if kind == "TLP64" else 5e-3 if what == "out" else 1e-4
        wanted = PEARLS[key]
        if wanted.size:
            np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
        assert got.shape == wanted.shape


#: Recordings of whole images: window, stride; and pixels whose two best classes are as good as equal.
IMAGES = {"whole": (0, 0, 0), "slide": (96, 48, 2)}


@pytest.mark.parametrize("key", [key for key in PEARLS.files if key.startswith("PIPE") and key.endswith("labels")])
def test_recorded_images_with_tlp(models, key):
    (case, post, thd), size, _ = parse(key)
    crop, stride, ties = IMAGES[case]
    dense = torch.from_numpy(PEARLS["PA|L8-reduced-pearl-a0.08|96x144|features"])
    words = dense[[index * len(dense) // 8 for index in range(8)]] - dense.mean(dim=0)
    text = as_classes(F.normalize(words, dim=-1), [0, 0, 1, 2, 3, 3, 3, 4])
    how = {"method": "PEARL", "slide_crop": crop, "slide_stride": stride, "logit_scale": 40, "prob_thd": float(thd[3:])}
    how |= {"post": "tlp" if post == "tlp" else None, "tlp_grid": 16}
    settings = replace(models[8].settings, **how)
    (((labels, _),),) = models[8].predict([sized_image(*size)], text, [size], settings=settings)
    assert (labels.numpy() != PEARLS[key]).sum() <= ties


@pytest.mark.parametrize(
    ("size", "cells"), [((40, 70), 20), ((33, 50), 16), ((1, 24), 16), ((30, 1), 10), ((1, 1), 80)]
)
def test_tlp_formula(size, cells):
    z, text = tlp_input(5, size, 0.5), random_text(5)
    wanted = reference.tlp(*(part.double().numpy() for part in (z, sized_image(*size), text)), cells)
    smooth = smoothed(z, sized_image(*size), text, cells)
    np.testing.assert_allclose(smooth.scores.permute(2, 0, 1).numpy(), wanted, atol=1e-6)
    assert smooth.grid.rows.weights(size[0], "cpu").shape == (size[0], wanted.shape[1])

"""SFR: against outputs recorded from its release, and against its formula in loops."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from family_models import assert_close, features, load, models, parse_key, random_text, recordings, tower
from second_encoders import files
from tiny import sized_image
from torch import Tensor

from clearclip import ClearCLIP
from clearclip.methods import (
    NACLIP,
    RCS,
    SFR,
    LastBlock,
    Method,
    sfr,
)
from clearclip.methods.sfr import feedback_matrix

RECORDED = recordings("sfr")


@torch.inference_mode()
def word_features(model: ClearCLIP, image: Tensor, method: Method, text: Tensor) -> np.ndarray:
    """Features (N, E) of a method that needs the words."""
    return model.image_encoder(image[None], [method], text)[0][0].flatten(0, 1).numpy()


@pytest.mark.parametrize("key", [key for key in RECORDED.files if key.endswith("|features") and "-none|" not in key])
def test_recorded_sfr(models, key):
    words, size, _ = parse_key(key)
    keep = (words[1] == "w_resi",) * 2
    parameters = {"ade": (0.25, 0.3, 2.1, 0.7), "voc21": (0.5, 0.3, 2.2, 0.7), "voc20": (0.1, 0.6, 2.1, 0.6)}
    threshold, lambda_r, tau, lambda_s = parameters[next(word for word in words if word in parameters)]
    attention = {"clearclip": "qq", "vanilla": "qk", "sclip": "qq+kk"}
    base = LastBlock(attention[words[2]], *keep) if words[2] in attention else NACLIP("naclip", 5, *keep)
    if "rcs" in words:
        base = RCS(base, 2, lambda_r, layers=(3, 4, 5) if words[0] == "L8" else None)
    text = random_text(8)
    if "ownwords" in words:
        dense = torch.from_numpy(RECORDED[f"L12-wo_resi-resclip-std5-ade-none|{key.split('|')[1]}|features"])
        text = dense[[index * len(dense) // 8 for index in range(8)]] - dense.mean(dim=0)
        text = F.normalize(text, dim=-1)
    method = SFR(base, threshold, tau, lambda_s, path="nodelete" not in words)
    assert_close(word_features(models[int(words[0][1:])], sized_image(*size), method, text), RECORDED[key])


@pytest.mark.parametrize("key", [key for key in RECORDED.files if key.endswith("|sfr")])
def test_recorded_feedback_matrix(key):
    labels = torch.from_numpy(RECORDED["sfr-synthetic|" + key.split("|")[1] + "|patchmap"]).long()
    assert_close(feedback_matrix(labels[None], 5, path="nodelete" not in key)[0].numpy(), RECORDED[key][1:, 1:])


@pytest.mark.parametrize("size", [(32, 48), (64, 208), (16, 64), (48, 16), (16, 16)])
@pytest.mark.parametrize("options", [{}, {"sigma": 2.0, "path": False, "lambda_r": None}], ids=["ResCLIP", "options"])
def test_sfr_formula(models, tower, options, size):
    image, refined = sized_image(*size), size != (64, 208)  # loops over so many pixels take long
    dense = torch.from_numpy(features(models[12], sized_image(96, 144)[None], NACLIP())).flatten(0, 2)
    text = F.normalize(dense[::7] - dense.mean(dim=0), dim=-1)
    options = {"threshold": 0.2, "tau": 1.8, "lambda_s": 0.6, "lambda_r": 0.3, **options}
    wanted = tower.sfr_features(image.double().numpy(), text.double().numpy(), **options, refine=refined)
    share = options.pop("lambda_r")
    method = SFR(NACLIP() if share is None else RCS(NACLIP(), lambda_r=share), **options, pamr=refined)
    assert_close(word_features(models[12], image, method, text), wanted.reshape(-1, 64))


@pytest.mark.parametrize("size", [(10, 10), (4, 13), (9, 6), (1, 30), (1, 1), (2, 2)])
@pytest.mark.parametrize("path", [True, False])
def test_feedback_matrix_formula(size, path):
    """Labels in patches of chance, some pairs on a line with others between."""
    labels = torch.randint(0, 3, (2, *size), generator=torch.Generator().manual_seed(0))
    labels[1, :, size[1] // 2 :] = 1
    found = feedback_matrix(labels, 3.0, path)
    for own, one in zip(labels, found, strict=True):
        assert_close(one.numpy(), reference.feedback(own.numpy(), 3.0, path))


@pytest.mark.parametrize("longest", [6, 10, 12, 13, 14, 18, 27])
def test_the_path_passes_the_cells_of_the_release(longest):
    """Between cells whose middle is a border, the last digit of torch.linspace decides: of step / longest, another."""
    points = sfr._points_on_lines(longest + 1, longest, torch.device("cpu"))
    for step in range(longest + 1):
        t = reference.linspace(longest + 1, step)
        cells = [
            [int(np.rint((1 - t) * np.float32(start) + t * np.float32(end))) for end in range(longest + 1)]
            for start in range(longest + 1)
        ]
        assert points[step].tolist() == cells


@pytest.mark.parametrize("size", [(4, 13), (7, 7), (11, 3), (2, 15), (19, 2)])
def test_feedback_matrix_where_points_lie_between_cells(size):
    labels = torch.randint(0, 2, (1, *size), generator=torch.Generator().manual_seed(1))
    assert_close(feedback_matrix(labels, 5.0, path=True)[0].numpy(), reference.feedback(labels[0].numpy(), 5.0, True))

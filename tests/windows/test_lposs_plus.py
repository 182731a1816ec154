"""LPOSS+ against its formula in loops; outputs recorded from its release are in methods/test_lposs.py."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from family_models import random_text

from clearclip.windows import ImageContext, LPOSSPlus, ScoreMap, lposs_plus


@pytest.mark.parametrize("size", [(7, 9), (14, 3), (1, 8), (1, 1)])
def test_pixel_formula(size):
    """LPOSS+ in loops, on images smaller than the square of neighbours, too."""
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(3, *size, generator=generator) * 0.1 + 0.4
    maps = torch.randn(*size, 3, generator=generator)
    context = ImageContext(rgb, size, random_text(3), torch.arange(3), denormalize=lambda image: image)
    post = LPOSSPlus(tau=0.05, reach=3, alpha=0.9, steps=6)
    got = post(ScoreMap.of_cells(maps), context).scores.numpy()
    wanted = reference.lposs_plus(maps.double().numpy(), rgb.double().numpy(), 0.05, 3, 0.9, 6)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_words_are_solved_apart(monkeypatch):
    """Few at a time give what all give."""
    rgb, maps = torch.rand(3, 9, 8), torch.randn(9, 8, 5)
    context = ImageContext(rgb, (9, 8), random_text(5), torch.arange(5), denormalize=lambda image: image)
    together = LPOSSPlus()(ScoreMap.of_cells(maps), context).scores
    monkeypatch.setattr(lposs_plus, "WORD_BYTES", 1)
    torch.testing.assert_close(LPOSSPlus()(ScoreMap.of_cells(maps), context).scores, together)

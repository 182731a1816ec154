"""Outlier patches and their repair: where patches are equal, all outliers, or large in half precision."""

from __future__ import annotations

import numpy as np
import reference
import torch

from clearclip.methods.outliers import outlier_scores, outliers, repair


def test_equal_patches_make_no_outliers_and_no_nan():
    equal = torch.randn(1, 1, 128).expand(2, 50, 128) * 30
    assert not outliers(equal, 30).any()
    almost = equal + 1e-5 * torch.randn(2, 50, 128)
    assert outlier_scores(almost, 30).isfinite().all()


def test_an_outlier_among_outliers_stays():
    patches, outlier = torch.randn(1, 6, 4), torch.tensor([[True, True, False, True, True, False]])
    wanted = reference.repaired(patches[0].numpy(), [0, 1, 3, 4], (2, 3))
    np.testing.assert_allclose(repair(patches, outlier, (2, 3))[0].numpy(), wanted, atol=1e-6)
    assert (wanted[0] == patches[0, 0].numpy()).all()


def test_half_precision_does_not_overflow():
    """Squares of large tokens exceed what fp16 holds; the choice of outliers must not notice."""
    patches = 40 * torch.randn(1, 64, 128, generator=torch.Generator().manual_seed(0)).half()
    assert patches.square().sum(-1).isinf().any()
    torch.testing.assert_close(outlier_scores(patches, 30), outlier_scores(patches.float(), 30))

"""Positional embeddings resized by matrices, and by PyTorch's interpolation."""

from __future__ import annotations

import pytest
import torch

from clearclip.backbones.dense_encoder import resize_positions
from clearclip.backbones.position_matrices import resize_by_matrices


@pytest.mark.parametrize("how", ["scale_factor", "size", "size without antialias"])
def test_position_matrices(how: str) -> None:
    """Matrices instead of PyTorch's interpolation, also for the trained grid, a single column, and far larger ones."""
    for trained_grid in ((14, 14), (5, 9), (1, 3)):
        generator = torch.Generator().manual_seed(0)
        embedding = torch.randn(1 + trained_grid[0] * trained_grid[1], 4, generator=generator)
        for grid in (trained_grid, (14, 15), (3, 1), (40, 9)):
            resized = resize_by_matrices(embedding, trained_grid, grid, how)
            assert torch.allclose(resized, resize_positions(embedding, trained_grid, grid, how), atol=2e-5)

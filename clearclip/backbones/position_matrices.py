"""Positional embeddings resized by matrix products, so that an exported graph can take images of any size.

:func:`clearclip.backbones.dense_encoder.resize_positions` calls PyTorch's interpolation, whose size becomes a constant
when a graph is exported. The same bicubic interpolation is one matrix for the rows and one for the columns, whose
values are plain arithmetic on the number of rows and of columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The parameter of the cubic kernel: PyTorch takes one value without antialiasing, and another with it.
SHARPNESS, ANTIALIASED_SHARPNESS = -0.75, -0.5
#: From so many pixels on, the kernel is 0.
KERNEL_RADIUS = 2


def resize_by_matrices(embedding: Tensor, trained_grid: tuple[int, int], grid: tuple[int, int], how: str) -> Tensor:
    """What ``resize_positions`` computes, to 1e-5; the grid may be two symbols of a graph.

    Args:
        embedding: (P + rows * columns of the trained grid, D), P from 0.
        trained_grid: the checkpoint's (rows, columns).
        grid: the wanted rows and columns.
        how: "scale_factor", "size" (antialiased) or "size without antialias".

    Returns:
        (P + rows * columns of the grid, D)
    """
    count = trained_grid[0] * trained_grid[1]
    prefix, patches = embedding.split([len(embedding) - count, count])
    patches = patches.unflatten(0, trained_grid).float()
    rows = torch.arange(grid[0], device=embedding.device).float()
    columns = torch.arange(grid[1], device=embedding.device).float()
    surplus = torch.zeros((), device=embedding.device)
    if how == "scale_factor":
        # The 0.1 of the published code, but for the trained grid, where nothing is resized. An "if" would be decided
        # once and for all when the graph is made.
        is_resized = (rows[-1] + 1 != trained_grid[0]) | (columns[-1] + 1 != trained_grid[1])
        surplus = 0.1 * is_resized.float()
    antialias = how == "size"
    row_matrix = _interpolation_matrix(rows, trained_grid[0], surplus, antialias)
    column_matrix = _interpolation_matrix(columns, trained_grid[1], surplus, antialias)
    patches = torch.einsum("rt,tud->rud", row_matrix, patches)
    patches = torch.einsum("cu,rud->rcd", column_matrix, patches)
    return torch.cat([prefix, patches.flatten(0, 1).to(embedding.dtype)])


def _interpolation_matrix(positions: Tensor, trained_length: int, surplus: Tensor, antialias: bool) -> Tensor:
    """What each position takes of each trained one, (positions, trained length).

    Args:
        positions: 0, 1, … along one side of the grid.
        trained_length: of the same side.
        surplus: added to the number of positions, before the scale is computed.
        antialias: whether the kernel is stretched where the side shrinks.
    """
    scale = trained_length / (positions[-1] + 1 + surplus)
    centres = (positions[:, None] + 0.5) * scale - 0.5
    if antialias:
        trained_positions = torch.arange(trained_length, device=positions.device).float()
        distances = (trained_positions - centres) / scale.clamp(min=1)
        weights = _cubic_kernel(distances, ANTIALIASED_SHARPNESS)
        # What lies beyond the border is left out, and the others make up for it.
        return weights / weights.sum(dim=1, keepdim=True)
    border = KERNEL_RADIUS + 1
    trained_positions = torch.arange(-border, trained_length + border, device=positions.device).float()
    weights = _cubic_kernel(trained_positions - centres, SHARPNESS)
    beyond_first, inside, beyond_last = weights.split([border, trained_length, border], dim=1)
    if trained_length == 1:
        return weights.sum(dim=1, keepdim=True)
    # What lies beyond the border has the border's value.
    first = inside[:, :1] + beyond_first.sum(dim=1, keepdim=True)
    last = inside[:, -1:] + beyond_last.sum(dim=1, keepdim=True)
    return torch.cat([first, inside[:, 1:-1], last], dim=1)


def _cubic_kernel(distances: Tensor, sharpness: float) -> Tensor:
    """Keys' kernel of bicubic interpolation, at such distances."""
    x = distances.abs()
    up_to_1 = ((sharpness + 2) * x - (sharpness + 3)) * x * x + 1
    up_to_2 = sharpness * (((x - 5) * x + 8) * x - 4)
    outer_values = torch.where(x < KERNEL_RADIUS, up_to_2, 0.0)
    return torch.where(x <= 1, up_to_1, outer_values)

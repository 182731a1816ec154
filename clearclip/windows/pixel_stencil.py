"""Weights between each pixel of an image and its neighbours, held as a stencil: one map for each pair of neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from clearclip.windows.label_propagation import inverse_roots

Region = tuple[slice, slice]


class NeighbourPairs(NamedTuple):
    """All pixels of an image that have a neighbour in one direction.

    Attributes:
        pixels, neighbours: where they are, and where their neighbours, as slices of the image.
        weights: between the two, (rows, columns).
    """

    pixels: Region
    neighbours: Region
    weights: Tensor


def regions(height: int, width: int, reach: int) -> Iterator[tuple[Region, Region]]:
    """Pixels and their neighbours for each direction in the square up to ``reach`` pixels away, opposite ones once."""
    farthest_down, farthest_right = min(reach, height - 1), min(reach, width - 1)
    for down in range(farthest_down + 1):
        for right in range(-farthest_right, farthest_right + 1):
            # Half of all directions: the opposite one has the same pairs of pixels.
            if (down, right) <= (0, 0):
                continue
            rows, rows_below = slice(0, height - down), slice(down, height)
            columns = slice(max(0, -right), width - max(0, right))
            neighbour_columns = slice(max(0, right), width - max(0, -right))
            yield (rows, columns), (rows_below, neighbour_columns)


def normalized_stencil(
    size: tuple[int, int], reach: int, weigh: Callable[[Region, Region], Tensor], device: torch.device
) -> list[NeighbourPairs]:
    """D^(-1/2) W D^(-1/2) of symmetric weights W, with D the sums of its rows.

    Args:
        size: height and width of the image.
        reach: of the square of neighbours, in pixels.
        weigh: the weights between pixels and their neighbours.
        device: where to compute.
    """
    stencil = []
    for pixels, neighbours in regions(*size, reach):
        stencil.append(NeighbourPairs(pixels, neighbours, weigh(pixels, neighbours)))
    degrees = torch.zeros(size, device=device)
    for pixels, neighbours, weights in stencil:
        degrees[pixels] += weights
        degrees[neighbours] += weights
    scale = inverse_roots(degrees)
    # In place: with a reach of 6 there are 84 maps of the image's size.
    for pixels, neighbours, weights in stencil:
        weights.mul_(scale[pixels]).mul_(scale[neighbours])
    return stencil


def neighbour_sums(stencil: list[NeighbourPairs], maps: Tensor) -> Tensor:
    """The weighted sum over each pixel's neighbours: maps (H, W, K) to the same."""
    sums = torch.zeros_like(maps)
    # Each pair of neighbours is held once and counts in both directions.
    for pixels, neighbours, weights in stencil:
        sums[pixels].addcmul_(weights[..., None], maps[neighbours])
        sums[neighbours].addcmul_(weights[..., None], maps[pixels])
    return sums

"""TLP, PEARL's "text-aware Laplacian propagation" (arXiv 2603.21528): similarities of a whole image, smoothed where the
image has no edges.

On a grid of about 80 cells a side, with Z the mean similarities of each cell, p their softmax over words, y the grey
values of the image, and s_c of word c the diagonal of a softmax of the words' similarities plus 10, over 11 (so between
10/11 and 1, whatever the words):

    C = max(largest p, 0.05)² (1 + sum_c s_c p_c²)
    w = exp(-5 |y - y'| / mean |y - y'|) (1 + sum_c s_c p_c p'_c), at most 1, of cells above or beside each other
    (C + L) F = C Z,   L the Laplacian of w

by 25 steps of conjugate gradients, for all words together. Those do not converge, and where they stop is part of the
method; in fp32 rounding would show in the third digit, so all of it is computed in fp64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.windows.window_grid import Axis, WindowGrid

STEPS = 25
CELLS = 80


def propagate(
    similarities: Tensor, grid: WindowGrid, image: Tensor, text: Tensor, cells: int = CELLS
) -> tuple[Tensor, WindowGrid]:
    """Smooth the similarities of an image.

    Args:
        similarities: (rows of patches, columns of patches, words), cosine, as :meth:`WindowGrid.join` gives them.
        grid: the windows they come from.
        image: normalised RGB at the original size, (3, H, W).
        text: the words' features, (words, E), of length 1.
        cells: about how many cells each side of the grid has; 224 for Cityscapes in PEARL's release.

    Returns:
        The similarities of the grid's cells, (h, w, words) float32, and the grid as one window over the image.
    """
    device, dtype = similarities.device, torch.float64
    if device.type == "mps":  # has no fp64
        moved, grid = propagate(similarities.cpu(), grid, image.cpu(), text.cpu(), cells)
        return moved.to(device), grid
    blocks = [max(1, round(length / cells)) for length in image.shape[1:]]
    pooled = []
    for axis, length, block in zip((grid.rows, grid.columns), image.shape[1:], blocks, strict=True):
        weights = axis.weights(length, device).to(dtype)
        pooled.append(weights[: length // block * block].unflatten(0, (-1, block)).mean(dim=1))
    z = torch.einsum("hr,rcq,wc->hwq", pooled[0], similarities.to(dtype), pooled[1])
    colours = F.avg_pool2d(image.to(dtype)[None], blocks)[0]
    smooth = _solve(*_system(z, colours, text.to(dtype)), z)
    rows, columns = (Axis(length, (0,), length, (0, 0), length, direct=True) for length in z.shape[:2])
    return smooth.float(), WindowGrid(rows, columns)


def own_share(text: Tensor) -> Tensor:
    """s_c of unit text features (words, E): (words,), between 10/11 and 1."""
    return ((text @ text.T / 0.5).softmax(dim=1).diagonal() + 10) / (11 + 1e-6)


def _system(z: Tensor, colours: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """C (h, w), w of horizontal neighbours (h, w - 1), and of vertical ones (h - 1, w).

    Args:
        z: similarities (h, w, words).
        colours: of the image, (3, h, w).
        text: the words' features, (words, E).
    """
    p, share = z.softmax(dim=-1), own_share(text)
    gain = (share * p.square()).sum(dim=-1).clamp(0, 1)
    data = p.amax(dim=-1).clamp_min(0.05).square() * (1 + gain)
    grey = (torch.tensor([0.299, 0.587, 0.114], dtype=z.dtype, device=z.device)[:, None, None] * colours).sum(dim=0)
    edges = []
    for one, other in ((slice(0, -1), slice(1, None)),) * 2:
        unlike = (grey[:, one] - grey[:, other]).abs()
        like = (share * p[:, one] * p[:, other]).sum(dim=-1).clamp(0, 1)
        weight = torch.exp(-5 * unlike / (unlike.mean() + 1e-6)) * (1 + like)
        edges.append(weight.clamp(0, 1))
        grey, p = grey.T, p.transpose(0, 1)
    return data, edges[0], edges[1].T


def _solve(data: Tensor, across: Tensor, down: Tensor, z: Tensor) -> Tensor:
    """F (h, w, words) after 25 steps from ``z``."""
    across, down = across[..., None], down[..., None]
    diagonal = data[..., None].clone()
    diagonal[:, :-1] += across
    diagonal[:, 1:] += across
    diagonal[:-1] += down
    diagonal[1:] += down

    def apply(x: Tensor) -> Tensor:
        out = diagonal * x
        out[:, :-1].addcmul_(across, x[:, 1:], value=-1)
        out[:, 1:].addcmul_(across, x[:, :-1], value=-1)
        out[:-1].addcmul_(down, x[1:], value=-1)
        out[1:].addcmul_(down, x[:-1], value=-1)
        return out

    x = z.clone()
    residual = data[..., None] * z - apply(x)
    direction, size = residual.clone(), residual.square().sum()
    for _ in range(STEPS):
        image = apply(direction)
        step = size / ((direction * image).sum() + 1e-12)
        x.addcmul_(direction, step)
        residual.addcmul_(image, -step)
        previous, size = size, residual.square().sum()
        direction = residual + size / (previous + 1e-12) * direction
    return x

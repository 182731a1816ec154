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

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.utils.registry import option
from clearclip.utils.validators import of_type
from clearclip.windows.joining import ImageContext
from clearclip.windows.post_processing import POST_PROCESSINGS, PostProcessing
from clearclip.windows.score_map import ScoreMap

GRADIENT_STEPS = 25
#: Shares of red, green and blue in a grey value.
GREY_SHARES = (0.299, 0.587, 0.114)


@POST_PROCESSINGS.register_module("tlp")
@dataclass(frozen=True)
class TLP(PostProcessing):
    """Scores at the original size, averaged over the cells of a grid and smoothed there.

    Args:
        grid: about how many cells each side of the grid has; 224 for Cityscapes in PEARL's release.
    """

    grid: int = option(80, of_type(int, low=1))

    def __call__(self, scores: ScoreMap, context: ImageContext) -> ScoreMap:
        # MPS has no fp64.
        if scores.device.type == "mps":
            return self._smoothed(scores.to("cpu"), context).to(scores.device)
        return self._smoothed(scores, context)

    def _smoothed(self, scores: ScoreMap, context: ImageContext) -> ScoreMap:
        height, width = context.size
        # A block is one cell of the grid; of images with fewer pixels than cells it is a pixel.
        blocks = (max(1, round(height / self.grid)), max(1, round(width / self.grid)))
        z = scores.pooled(context.size, blocks)
        image = context.image_at_original_size.to(scores.device, torch.float64)
        colours = F.avg_pool2d(image[None], blocks)[0]
        data, across, down = linear_system(z, colours, context.text.to(scores.device, torch.float64))
        return ScoreMap.of_cells(solve(data, across, down, z).float())


def word_shares(text: Tensor) -> Tensor:
    """s_c of unit text features (words, E): (words,), between 10/11 and 1."""
    # 0.5, 10 and 11 are constants of the release.
    shares = (text @ text.T / 0.5).softmax(dim=1).diagonal()
    return (shares + 10) / (11 + 1e-6)


def linear_system(z: Tensor, colours: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """C (h, w), w of horizontal neighbours (h, w - 1), and of vertical ones (h - 1, w).

    Args:
        z: similarities (h, w, words).
        colours: of the image, (3, h, w).
        text: the words' features, (words, E).
    """
    p = z.softmax(dim=-1)
    shares = word_shares(text)
    gain = (shares * p.square()).sum(dim=-1).clamp(0, 1)
    data = p.amax(dim=-1).clamp_min(0.05).square() * (1 + gain)
    # Python's numbers, not a tensor of them, which would be copied to a GPU for every image.
    weighted = [share * colour for share, colour in zip(GREY_SHARES, colours, strict=True)]
    grey = torch.stack(weighted).sum(dim=0)
    across = _weights_across(grey, p, shares)
    # Columns are rows of the transposed image.
    down = _weights_across(grey.T, p.transpose(0, 1), shares).T
    return data, across, down


def _weights_across(grey: Tensor, p: Tensor, shares: Tensor) -> Tensor:
    """w of neighbours in a row, (h, w - 1), for grey values (h, w) and probabilities (h, w, words)."""
    unlike = (grey[:, :-1] - grey[:, 1:]).abs()
    like = (shares * p[:, :-1] * p[:, 1:]).sum(dim=-1).clamp(0, 1)
    weights = torch.exp(-5 * unlike / (unlike.mean() + 1e-6)) * (1 + like)
    return weights.clamp(0, 1)


def solve(data: Tensor, across: Tensor, down: Tensor, z: Tensor) -> Tensor:
    """F (h, w, words) after 25 steps from ``z``; arguments as :func:`linear_system` gives them."""
    across, down = across[..., None], down[..., None]
    # Of C + L: a cell's own weight, and the weights to its neighbours, each of which counts at both ends.
    diagonal = data[..., None].clone()
    diagonal[:, :-1] += across
    diagonal[:, 1:] += across
    diagonal[:-1] += down
    diagonal[1:] += down

    def apply(x: Tensor) -> Tensor:
        """(C + L) x."""
        product = diagonal * x
        product[:, :-1].addcmul_(across, x[:, 1:], value=-1)
        product[:, 1:].addcmul_(across, x[:, :-1], value=-1)
        product[:-1].addcmul_(down, x[1:], value=-1)
        product[1:].addcmul_(down, x[:-1], value=-1)
        return product

    # Sums are over all words together, as in the release: one length of step for all of them.
    x = z.clone()
    residual = data[..., None] * z - apply(x)
    direction = residual.clone()
    squared_norm = residual.square().sum()
    for _ in range(GRADIENT_STEPS):
        image = apply(direction)
        step = squared_norm / ((direction * image).sum() + 1e-12)
        x.addcmul_(direction, step)
        residual.addcmul_(image, -step)
        previous_norm = squared_norm
        squared_norm = residual.square().sum()
        direction = residual + squared_norm / (previous_norm + 1e-12) * direction
    return x

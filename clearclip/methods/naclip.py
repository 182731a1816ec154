"""NACLIP: k-k attention that favours neighbours (Hajimiri, Ben Ayed and Dolz, "Pay Attention to Your Neighbours:
Training-Free Open-Vocabulary Semantic Segmentation", WACV 2025, arXiv 2404.08181).

With p_i the place of patch i on the grid (row, column), and omega 0 in the row and the column of the class token:

    omega_ij = exp(-|p_i - p_j|² / (2 sigma²))
    A = softmax(k kᵀ / sqrt(d) + omega)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.block_parts import BlockParts
from clearclip.methods.last_block import AttentionMethod, attend
from clearclip.methods.method import METHODS, Context, option
from clearclip.utils.validators import choice, of_type

STRATEGIES = ("naclip", "nonly", "kk")


@METHODS.register_module()
@dataclass(frozen=True)
class NACLIP(AttentionMethod):
    """NACLIP on the last block.

    Args:
        strategy: "naclip"; "nonly", softmax(c omega) with c the mean of |q_i| |k_j| / sqrt(d) over heads, rows and
            columns, one number for an image; or "kk", without omega.
        sigma: of the Gaussian, in patches, whatever the patch size.
        residual, ffn: keep the residual connection, or the FFN (the paper's "vanilla" architecture keeps both).

    Raises:
        UserError: an unknown strategy, or sigma below 0.001.
    """

    strategy: str = option("naclip", choice(*STRATEGIES))
    sigma: float = option(5.0, of_type(int, float, low=1e-3))
    residual: bool = option(False, of_type(bool))
    ffn: bool = option(False, of_type(bool))

    @property
    def has_logits(self) -> bool:
        return self.strategy != "nonly"

    def gather(self, block: BlockParts, tokens: Tensor, v: Tensor, context: Context) -> Tensor:
        k = block.project(tokens, "k")
        if self.strategy == "kk":
            return attend(k, k, v, context)
        omega = neighbourhood(context.grid_size, context.num_prefix_tokens, self.sigma, tokens.device)
        if self.strategy == "naclip":
            return attend(k, k, v, context, omega)
        # "nonly": the mean of |q_i| |k_j| over all pairs is the product of the two means.
        q_norm = block.project(tokens, "q").float().norm(dim=-1).mean(dim=-1)
        k_norm = k.float().norm(dim=-1).mean(dim=-1)
        c = (q_norm * k_norm).mean(dim=1) * k.shape[-1] ** -0.5
        weights = (c[:, None, None] * omega).softmax(dim=-1)
        # The same weights for all heads.
        return weights[:, None].to(v.dtype) @ v


def neighbourhood(grid: tuple[int, int], prefix: int, sigma: float, device: torch.device) -> Tensor:
    """omega for a grid of patches, (prefix + N, prefix + N) float32: 1 on the diagonal of the patches."""
    if isinstance(grid[0], torch.SymInt) or isinstance(grid[1], torch.SymInt):
        # In a graph that is exported for images of any size, for which nothing can be kept.
        return _compute_neighbourhood(grid, prefix, sigma, device)
    return _cached_neighbourhood(grid, prefix, sigma, device)


def _compute_neighbourhood(grid: tuple[int, int], prefix: int, sigma: float, device: torch.device) -> Tensor:
    # A Gaussian of a plane is the product of one for rows and one for columns.
    rows, columns = _gaussian(grid[0], sigma), _gaussian(grid[1], sigma)
    # As torch.kron, which exported graphs compute for one size only.
    products = rows[:, None, :, None] * columns[None, :, None, :]
    omega = products.flatten(2, 3).flatten(0, 1)
    return F.pad(omega, (prefix, 0, prefix, 0)).to(device)


def _gaussian(length: int, sigma: float) -> Tensor:
    """exp(-(i - j)² / (2 sigma²)) of positions on a line, (length, length) float32."""
    positions = torch.arange(length)
    return torch.exp(-((positions[:, None] - positions) ** 2) / (2 * sigma**2))


# Windows of one size follow each other, and their omega is the same.
_cached_neighbourhood = lru_cache(maxsize=16)(_compute_neighbourhood)

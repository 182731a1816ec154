"""One pre-norm transformer block, taken apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class BlockParts:
    """The pieces of one pre-norm transformer block, whichever library built it.

    ``in_proj_weight`` is (3D, D) and ``in_proj_bias`` (3D,) or None: the rows of q, then k, then v.
    ``scale_1`` and ``scale_2`` are LayerScale modules, or identities.
    """

    ln_1: nn.Module
    in_proj_weight: Tensor
    in_proj_bias: Tensor | None
    heads: int
    out_proj: nn.Module
    scale_1: nn.Module
    ln_2: nn.Module
    mlp: nn.Module
    scale_2: nn.Module

    def project(self, x: Tensor, which: str) -> Tensor:
        """q, k or v of normalised tokens ``x`` (B, T, D), split into heads: (B, heads, T, D // heads)."""
        width = self.in_proj_weight.shape[1]
        rows = slice("qkv".index(which) * width, ("qkv".index(which) + 1) * width)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        return F.linear(x, self.in_proj_weight[rows], bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def merge(self, heads: Tensor) -> Tensor:
        """Join the heads (B, heads, T, D // heads) and apply the output projection: X_attn, (B, T, D)."""
        return self.scale_1(self.out_proj(heads.transpose(1, 2).flatten(2)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """``x`` (B, T, D) and what the FFN adds to it."""
        return x + self.scale_2(self.mlp(self.ln_2(x)))

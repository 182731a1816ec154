"""The paper in one file: the last block of a CLIP ViT, taken apart (ClearCLIP, ECCV 2024, section 3).

A block computes, from its input X of shape (B, 1+N, D), one class token and N patches:

    X_attn = out_proj(Attention(q, k, v))        q, k, v = in_proj(ln_1(X))
    X_res  = X
    X_sum  = X_res + alpha * X_attn              X_res only where the residual is kept
    X_out  = X_sum + mlp(ln_2(X_sum))            the FFN and its own skip only where the FFN is kept

ClearCLIP finds the noise of CLIP's dense features in X_res and takes X_attn alone, with q-q attention: three
switches, nothing trained. The other rows of the paper's table are other settings of the same switches.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearclip.errors import UserError

#: Which of q, k, v compare with themselves; "qk" is vanilla CLIP, "identity" lets each token see only itself.
ATTENTIONS = {
    "qk": (("q", "k"),),
    "qq": (("q", "q"),),
    "kk": (("k", "k"),),
    "vv": (("v", "v"),),
    "qq+kk": (("q", "q"), ("k", "k")),
    "identity": (),
}


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

    @classmethod
    def of_open_clip(cls, block: nn.Module) -> BlockParts:
        """The parts of an OpenCLIP ``ResidualAttentionBlock``."""
        attn = block.attn
        return cls(
            ln_1=block.ln_1,
            in_proj_weight=attn.in_proj_weight,
            in_proj_bias=attn.in_proj_bias,
            heads=attn.num_heads,
            out_proj=attn.out_proj,
            scale_1=block.ls_1,
            ln_2=block.ln_2,
            mlp=block.mlp,
            scale_2=block.ls_2,
        )

    def project(self, x: Tensor, which: str) -> Tensor:
        """q, k or v of normalised tokens ``x`` (B, T, D), split into heads: (B, heads, T, D // heads)."""
        width = self.in_proj_weight.shape[1]
        rows = slice("qkv".index(which) * width, ("qkv".index(which) + 1) * width)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        return F.linear(x, self.in_proj_weight[rows], bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def merge(self, heads: Tensor) -> Tensor:
        """Join the heads (B, heads, T, D // heads) and apply the output projection: X_attn, (B, T, D)."""
        return self.scale_1(self.out_proj(heads.transpose(1, 2).flatten(2)))


@dataclass(frozen=True)
class LastBlock:
    """How the last block is computed. The defaults are ClearCLIP.

    Args:
        attention: a key of :data:`ATTENTIONS`. "qq+kk" adds two softmax maps, as SCLIP does (a sum, not a mean).
        residual: keep X_res in X_sum.
        ffn: keep the feed-forward network and the skip around it.
        alpha: factor of X_attn in X_sum (section 3.3 of the paper sweeps it).

    Raises:
        UserError: unknown attention, alpha not a number, or nothing left (no residual and alpha = 0).
    """

    attention: str = "qq"
    residual: bool = False
    ffn: bool = False
    alpha: float = 1.0

    depth = 1  # blocks from the end that this method computes itself
    position_resize = "scale_factor"  # how positional embeddings are resized, see image_encoder.py

    def __post_init__(self):
        if self.attention not in ATTENTIONS:
            raise UserError(f"unknown attention {self.attention!r}; choose from {', '.join(ATTENTIONS)}")
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float):
            raise UserError(f"alpha must be a number, not {self.alpha!r}")
        if not math.isfinite(self.alpha):
            raise UserError(f"alpha must be finite, not {self.alpha}")
        if self.alpha == 0 and not self.residual:
            raise UserError("alpha=0 without the residual leaves nothing of the block; set residual=True or alpha")

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor) -> Tensor:
        """Tokens before the last block to tokens after it: (B, 1+N, D) to (B, 1+N, D).

        Only what the switches use is computed: "qq" projects no k, "identity" only v.
        """
        (block,) = blocks
        x_sum = x if self.residual else None
        if self.alpha != 0:
            x_attn = self.alpha * self._attend(block, block.ln_1(x))
            x_sum = x_attn if x_sum is None else x_sum + x_attn
        if self.ffn:
            return x_sum + block.scale_2(block.mlp(block.ln_2(x_sum)))
        return x_sum

    def _attend(self, block: BlockParts, x: Tensor) -> Tensor:
        pairs = ATTENTIONS[self.attention]
        needed = {"v", *(name for pair in pairs for name in pair)}
        parts = {name: block.project(x, name) for name in needed}
        maps = [F.scaled_dot_product_attention(parts[a], parts[b], parts["v"]) for a, b in pairs]
        return block.merge(functools.reduce(torch.add, maps) if maps else parts["v"])

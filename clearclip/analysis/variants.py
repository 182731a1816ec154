"""The variants of the last block that the paper compares, computed together in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clearclip.last_block import ATTENTIONS, BlockParts, LastBlock

#: Features from one part of the last block alone (paper: section 3.1); no FFN.
X_RES = LastBlock("qk", residual=True, ffn=False, alpha=0)
X_ATTN = LastBlock("qk", residual=False, ffn=False)
X_SUM = LastBlock("qk", residual=True, ffn=False)

#: Factors of X_attn in X_sum = X_res + α·X_attn (section 3.3). 0 is X_res; the limit is X_attn alone.
ALPHAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
ALPHA_ATTENTIONS = ("qk", "qq")


def alpha_sweep(attention: str) -> list[LastBlock]:
    """X_sum for every α of :data:`ALPHAS`, and X_attn alone as the last."""
    sums = [LastBlock(attention if alpha else "qk", residual=True, ffn=False, alpha=alpha) for alpha in ALPHAS]
    return [*sums, LastBlock(attention, residual=False, ffn=False)]


def ablation(attention: str) -> list[LastBlock]:
    """Both kept, residual only, FFN only, neither."""
    return [
        LastBlock(attention, residual=residual, ffn=ffn)
        for residual, ffn in ((True, True), (True, False), (False, True), (False, False))
    ]


def all_variants() -> tuple[LastBlock, ...]:
    """Every variant that a figure needs, once."""
    variants = [X_RES, X_ATTN, X_SUM]
    variants += [variant for attention in ALPHA_ATTENTIONS for variant in alpha_sweep(attention)]
    variants += [variant for attention in ATTENTIONS for variant in ablation(attention)]
    return tuple(dict.fromkeys(variants))


@dataclass(frozen=True)
class Together:
    """A method that computes several variants of the last block: the blocks before it run only once.

    An image encoder with this method gives ``len(variants)`` times as many features as it got images: all images of
    the first variant, then all of the second, and so on.
    """

    variants: Sequence[LastBlock]

    depth = 1
    position_resize = "scale_factor"

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor) -> Tensor:
        """Tokens before the last block, (B, 1+N, D), to those of every variant, (variants · B, 1+N, D)."""
        return torch.cat([variant(blocks, x) for variant in self.variants])

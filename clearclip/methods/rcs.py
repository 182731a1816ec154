"""RCS, "residual cross-correlation self-attention": the first module of ResCLIP (Yang, Deng, Li and Duan, "ResCLIP:
Residual Attention for Training-free Dense Vision-language Inference", CVPR 2025, arXiv 2411.15851).

The last block's attention A, of whatever method, is mixed with the mean R of the q-k attention of blocks 5 to 8
(counted from 0), head by head:

    A' = tau ((1 - lambda) A + lambda R)

All of this is linear in A, so what the tokens gather is mixed in place of the maps, and no map is ever held. ResCLIP's
second module (SFR) makes features depend on the words, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.base import METHODS, Context, Method, build_method, check_indices
from clearclip.methods.block import BlockParts
from clearclip.methods.last_block import AttentionMethod, LastBlock
from clearclip.utils.errors import UserError, check_number

CLEARCLIP = LastBlock()
LAYERS = (5, 6, 7, 8)  # whatever the depth, as published
HALVED = (2, 3, 4)  # for the miniature and its six blocks


@METHODS.register_module()
@dataclass(frozen=True)
class RCS(Method):
    """RCS around another method: "ClearCLIP + RCS", "NACLIP + RCS", "SCLIP + RCS".

    Args:
        base: the method whose attention is mixed: a name, a dict or a method, as for ``build_method``.
        tau: factor of the whole; rows of the mixed attention sum to it.
        lambda_r: share of R, 0 to 1.
        layers: the blocks whose attention R averages, counted from 0; the last block is none of them. None means the
            published ones, or :data:`HALVED` for six blocks.

    Raises:
        UserError: a base that is more than one attention, or a value that cannot be meant.
    """

    base: Method = CLEARCLIP
    tau: float = 2.0
    lambda_r: float = 0.3
    layers: tuple[int, ...] | None = None

    needs_same_tokens = True

    def __post_init__(self):
        object.__setattr__(self, "base", build_method(self.base))
        if not isinstance(self.base, AttentionMethod):
            raise UserError(
                f"RCS changes the attention of the last block, which {self.base.label} has no single one of"
            )
        check_number("tau of RCS", self.tau, 0, 100)
        check_number("lambda_r of RCS", self.lambda_r, 0, 1)
        if self.layers is not None:
            object.__setattr__(self, "layers", check_indices("layers of RCS", self.layers))

    def keeping(self, residual_and_ffn: bool) -> RCS:
        return replace(self, base=self.base.keeping(residual_and_ffn))

    def required_blocks(self, blocks: int) -> tuple[int, ...]:
        layers = self.layers or (HALVED if blocks == 6 else LAYERS)
        if max(layers) > blocks - 2:
            raise UserError(
                f"RCS reads the attention of blocks {', '.join(map(str, layers))} and needs at least "
                f"{max(layers) + 2} blocks, but this model has {blocks}; choose a deeper model, or other layers"
            )
        return layers

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor, context: Context) -> Tensor:
        """Tokens before the last block to tokens after it: (B, 1+N, D) to (B, 1+N, D)."""
        block = blocks[-1]
        normed = block.ln_1(x)
        v = block.project(normed, "v")
        own = self.base.gather(block, normed, v, context)
        layers = self.required_blocks(len(blocks))
        of_layers = sum(_cross(blocks[layer], context.inputs[layer], v) for layer in layers) / len(layers)
        return self.base.finish(block, x, self.tau * torch.lerp(own, of_layers, self.lambda_r))


def _cross(block: BlockParts, x: Tensor, v: Tensor) -> Tensor:
    """What a block's own q-k attention gathers of other values ``v`` (B, heads, 1+N, D // heads)."""
    x = block.ln_1(x)
    return F.scaled_dot_product_attention(block.project(x, "q"), block.project(x, "k"), v)

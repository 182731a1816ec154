"""RCS, "residual cross-correlation self-attention": the first module of ResCLIP (Yang, Deng, Li and Duan, "ResCLIP:
Residual Attention for Training-free Dense Vision-language Inference", CVPR 2025, arXiv 2411.15851).

The last block's attention A, of whatever method, is mixed with the mean R of the q-k attention of blocks 5 to 8
(counted from 0), head by head:

    A' = tau ((1 - lambda) A + lambda R)

All of this is linear in A, so what the tokens gather is mixed in place of the maps, and no map is ever held. ResCLIP's
second module is :mod:`clearclip.methods.sfr`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.around_base import MethodAroundBase
from clearclip.methods.block_parts import BlockParts
from clearclip.methods.last_block import AttentionMethod
from clearclip.methods.method import METHODS, Context, any_method, block_numbers, option
from clearclip.utils.errors import UserError
from clearclip.utils.validators import of_type

PUBLISHED_LAYERS = (5, 6, 7, 8)  # whatever the depth, as published


def one_attention(name: str, value: Any) -> AttentionMethod:
    """A check: a method that is one attention of the last block, or its description."""
    method = any_method(name, value)
    if not isinstance(method, AttentionMethod):
        raise UserError(f"{name} must be one attention of the last block, which {method.label} has no single one of")
    return method


@METHODS.register_module()
@dataclass(frozen=True)
class RCS(MethodAroundBase):
    """RCS around another method: "ClearCLIP + RCS", "NACLIP + RCS", "SCLIP + RCS".

    Args:
        base: the method whose attention is mixed: a name, a dict or a method, as for ``build_method``.
        tau: factor of the whole; rows of the mixed attention sum to it.
        lambda_r: share of R, 0 to 1.
        layers: the blocks whose attention R averages, counted from 0; the last block is none of them. None means the
            model's own, or the published ones (:data:`PUBLISHED_LAYERS`).

    Raises:
        UserError: a base that is more than one attention, or a value that cannot be meant.
    """

    base: AttentionMethod = option("ClearCLIP", one_attention)
    tau: float = option(2.0, of_type(int, float, low=0, high=100))
    lambda_r: float = option(0.3, of_type(int, float, low=0, high=1))
    layers: tuple[int, ...] | None = option(None, block_numbers)

    needs_same_tokens = True

    @property
    def has_logits(self) -> bool:
        return self.base.has_logits

    def required_blocks(self, blocks: int) -> tuple[int, ...]:
        layers = self.layers or PUBLISHED_LAYERS
        # The last block's own attention is the one that the others are mixed into.
        if max(layers) > blocks - 2:
            raise UserError(
                f"RCS reads the attention of blocks {', '.join(map(str, layers))} and needs at least "
                f"{max(layers) + 2} blocks, but this model has {blocks}; choose a deeper model, or other layers"
            )
        return layers

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor, context: Context) -> Tensor:
        """Tokens before the last block to tokens after it: (B, 1+N, D) to (B, 1+N, D)."""
        block = blocks[-1]
        tokens = block.apply_ln_1(x)
        v = block.project(tokens, "v")
        layers = self.required_blocks(len(blocks))

        def mean_over_layers() -> Tensor:
            return sum(gather_by_block(blocks[layer], context.inputs[layer], v) for layer in layers) / len(layers)

        # The same for every base: computed by the first method of a pass that asks.
        residual_gathered = context.once(("RCS", layers), mean_over_layers)
        base_gathered = self.base.gather(block, tokens, v, context)
        mixed = torch.lerp(base_gathered, residual_gathered, self.lambda_r)
        return self.base.finish(block, x, self.tau * mixed)


def gather_by_block(block: BlockParts, x: Tensor, v: Tensor) -> Tensor:
    """What an earlier block's own q-k attention gathers of the values ``v`` (B, heads, 1+N, D // heads)."""
    tokens = block.apply_ln_1(x)
    return F.scaled_dot_product_attention(block.project(tokens, "q"), block.project(tokens, "k"), v)

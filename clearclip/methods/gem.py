"""GEM: a second stream of self-self attention beside the last six blocks (spec of the comparison in the paper).

The first stream is unchanged CLIP. The second starts as a copy of it and gathers, block after block, self-self
attention of the queries, keys and values that the first one has there; it never passes an FFN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.block_parts import BlockParts
from clearclip.methods.method import METHODS, Context, Method, option
from clearclip.utils.errors import UserError
from clearclip.utils.validators import of_type


@METHODS.register_module()
@dataclass(frozen=True)
class GEM(Method):
    """GEM on the last six blocks.

    Args:
        residual: True adds every block's X_attn to the second stream (GEM as published); False replaces the stream
            by it ("GEM + ClearCLIP").
    """

    residual: bool = option(True, of_type(bool))

    position_resize = "size"
    needs_same_tokens = True
    gathered = 6  # blocks

    def with_residual_and_ffn(self) -> GEM:
        return GEM(residual=True)

    def without_residual_and_ffn(self) -> GEM:
        return GEM(residual=False)

    @property
    def label(self) -> str:
        return "GEM" if self.residual else "GEM + ClearCLIP"

    def required_blocks(self, blocks: int) -> range:
        if blocks < self.gathered:
            raise UserError(
                f"GEM works on the last {self.gathered} blocks, but this model has {blocks}; "
                "choose a deeper model or another method"
            )
        # Without the residual each block overwrites the stream, so only the last one counts.
        count = self.gathered if self.residual else 1
        return range(blocks - count, blocks)

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor, context: Context) -> Tensor:
        """Tokens of the first stream, before each of the last six blocks, to the second stream after them."""
        indices = self.required_blocks(len(blocks))
        stream = torch.zeros_like(x)
        if self.residual:
            stream = context.inputs[indices[0]]
        for index in indices:
            # From the first stream's tokens, and not from the second's: GEM's queries are those of unchanged CLIP.
            tokens = blocks[index].ln_1(context.inputs[index])
            stream = stream + self_self_attention(blocks[index], tokens)
        return stream


def self_self_attention(block: BlockParts, x: Tensor) -> Tensor:
    """X_attn of GEM for normalised tokens ``x`` (B, 1+N, D): out_proj of the mean over v, k and q, (B, 1+N, D)."""
    value = block.project(x, "v")
    head_dim = value.shape[-1]
    # One temperature an image. In fp16 the norm of a wide token can overflow, so it is taken in fp32.
    temperature = x.float().norm(dim=-1).mean(dim=-1) * head_dim**-0.5
    # Scaling one side is scaling the product: SDPA takes no temperature per image.
    temperature = temperature.to(x.dtype)[:, None, None, None]

    def gather(tokens: Tensor, values: Tensor) -> Tensor:
        """softmax(temperature · tokens tokensᵀ) values."""
        return F.scaled_dot_product_attention(tokens * temperature, tokens, values, scale=1.0)

    total = torch.zeros_like(value)
    # In this order, on which a sum of floats depends.
    for name in "vkq":
        unit = F.normalize(block.project(x, name), dim=-1)
        # GEM's one iteration of clustering: tokens that are alike move towards each other.
        clustered = F.normalize(gather(unit, unit), dim=-1)
        total = total + gather(clustered, value)
    return block.merge(total / 3)

"""GEM: a second stream of self-self attention beside the last six blocks (spec of the comparison in the paper).

``ori`` is unchanged CLIP. ``gem`` starts as a copy of it and gathers, block after block, self-self attention
of the queries, keys and values that ``ori`` has there; it never passes an FFN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.last_block import BlockParts, LastBlock


@dataclass(frozen=True)
class GEM:
    """GEM on the last six blocks.

    Args:
        residual: True adds every block's X_attn to the gem stream (GEM as published); False replaces the stream
            by it ("GEM + ClearCLIP").
    """

    residual: bool = True

    attention = "gem"
    ffn = False
    alpha = 1.0
    depth = 6
    position_resize = "size"

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor) -> Tensor:
        """Tokens before the last six blocks to the gem stream after them: (B, 1+N, D) to (B, 1+N, D)."""
        unchanged = LastBlock("qk", residual=True, ffn=True)
        ori = gem = x
        for index, block in enumerate(blocks):
            last = index == len(blocks) - 1
            # Without the residual each block overwrites the stream, so only the last one counts.
            if self.residual or last:
                x_attn = self_self_attention(block, block.ln_1(ori))
                gem = gem + x_attn if self.residual else x_attn
            if not last:
                ori = unchanged([block], ori)
        return gem


def self_self_attention(block: BlockParts, x: Tensor) -> Tensor:
    """X_attn of GEM for normalised tokens ``x`` (B, 1+N, D): out_proj of the mean over v, k and q, (B, 1+N, D)."""
    value = block.project(x, "v")
    head_dim = value.shape[-1]
    # One temperature an image. In fp16 the norm of a wide token can overflow, so it is taken in fp32.
    temperature = x.float().norm(dim=-1).mean(dim=-1) * head_dim**-0.5
    # Scaling one side is scaling the product: SDPA takes no temperature per image.
    temperature = temperature.to(x.dtype)[:, None, None, None]

    def attend(p: Tensor, to: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(p * temperature, p, to, scale=1.0)

    total = torch.zeros_like(value)
    for name in "vkq":
        p = F.normalize(block.project(x, name), dim=-1)
        p = F.normalize(attend(p, p), dim=-1)
        total = total + attend(p, value)
    return block.merge(total / 3)

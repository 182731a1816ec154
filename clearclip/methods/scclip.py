"""SC-CLIP: outlier patches repaired, and attention and output corrected by what earlier blocks hold similar (Bai, Liu,
Han, Zhang and Tang, "Self-Calibrated CLIP for Training-Free Open-Vocabulary Segmentation", arXiv 2411.15869).

With H_l the tokens after block l (from 0), P_l its patches, c_l its class token, and L blocks:

    S1, S2 = cosine similarities of repair(P_pre), and of P_post
    agg(S) = S with entries below beta set to 0 and rows divided by their sum
    B(T)   = out_proj(A v), A = (softmax(3 (S1 - mean S1), negative ones left out) + softmax(k kᵀ / sqrt(d))) / 2
    Y1     = agg(S2) (B(agg(S1) repair(P_{L-2})) + rho c_{L-2})
    Y2     = agg(S2) (B(patches of E) + rho class token of E),       E = sum of H_l over ``summed``

and Y1 + Y2 comes out. Residual connection and FFN are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.block_parts import BlockParts
from clearclip.methods.method import METHODS, Context, Method, block_numbers, option
from clearclip.methods.outliers import outliers, repair
from clearclip.utils.errors import UserError
from clearclip.utils.validators import of_type

#: pre, post, summed and rho by number of blocks: ViT-B/16's (12) and ViT-L/14's (24).
DEFAULTS: dict[int, tuple[Any, ...]] = {
    12: (8, 3, tuple(range(3, 10)), 0.3),
    24: (16, 6, tuple(range(8, 19)), 0.1),
}


_block_number = of_type(int, None, low=0)


@METHODS.register_module("SC-CLIP")
@dataclass(frozen=True)
class SCCLIP(Method):
    """SC-CLIP on the last block. ``None`` means the model's own value, or that of :data:`DEFAULTS`.

    Args:
        pre, post: blocks whose outputs give S1 and S2, counted from 0.
        summed: blocks whose outputs E sums up.
        rho: share of the class token that every patch gets.
        beta: similarities below it do not count.
        neighbours: K of :func:`outliers`.

    Raises:
        UserError: a value that cannot be meant.
    """

    pre: int | None = option(None, _block_number)
    post: int | None = option(None, _block_number)
    summed: tuple[int, ...] | None = option(None, block_numbers)
    rho: float | None = option(None, of_type(int, float, None, low=0, high=1))
    beta: float = option(0.4, of_type(int, float, low=0, high=1))
    neighbours: int = option(30, of_type(int, low=1))

    needs_class_token = needs_same_tokens = True

    def published_layers(self, blocks: int) -> tuple[Any, ...] | None:
        """pre, post, summed and rho as published for a model of so many blocks."""
        return DEFAULTS.get(blocks)

    def layers(self, blocks: int) -> tuple[Any, ...]:
        """pre, post, summed and rho for a model of so many blocks.

        Raises:
            UserError: none are known for it, or there are not so many blocks.
        """
        layers: list[Any] = [self.pre, self.post, self.summed, self.rho]
        published = self.published_layers(blocks)
        if published is None and None in layers:
            raise UserError(
                f"{self.name} has its own layers for {' or '.join(map(str, DEFAULTS))} blocks only, but this model "
                f"has {blocks}; give it pre, post, summed and rho, or choose another method"
            )
        # Each option that is None is filled in alone: rho of one's own goes with the published layers.
        for index, value in enumerate(layers):
            if value is None:
                layers[index] = published[index]
        pre, post, summed, rho = layers
        last_read = max(pre, post, *summed)
        if last_read > blocks - 2:
            raise UserError(f"{self.name} can read blocks 0 to {blocks - 2} of this model, not {last_read}")
        return pre, post, summed, rho

    def required_blocks(self, blocks: int) -> set[int]:
        pre, post, summed, _ = self.layers(blocks)
        # The output of one block is the input of the next.
        return {layer + 1 for layer in (pre, post, *summed)}

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor, context: Context) -> Tensor:
        """Tokens before the last block to tokens after it: (B, 1+N, D) to (B, 1+N, D); the class token is ``x``'s."""
        pre, post, summed, rho = self.layers(len(blocks))
        block, first, grid = blocks[-1], context.num_prefix_tokens, context.grid_size
        is_outlier = self.outliers(blocks, x, context)
        s1 = cosines(repair(context.inputs[pre + 1][:, first:], is_outlier, grid))
        s2 = cosines(context.inputs[post + 1][:, first:])
        # Sums of tokens of several blocks exceed what fp16 holds.
        total = sum(context.inputs[layer + 1].float() for layer in summed)
        # Softmax apart, all that the two passes differ in is linear: their sum goes through the rest once.
        repaired = aggregate(s1, self.beta, repair(x[:, first:], is_outlier, grid))
        # Not by the block's cache, which keeps what methods share: nobody else has these tokens.
        normed = block.ln_1(torch.cat([repaired, total[:, first:]])).to(x.dtype)
        # Twice the mean of the passes, and not their sum: the bias of out_proj counts twice.
        attended = 2 * block.merge(self.gather(block, normed, s1) / 2)
        patches = attended + rho * (x[:, :1] + total[:, :1])
        return torch.cat([x[:, :first], aggregate(s2, self.beta, patches).to(x.dtype)], dim=1)

    def outliers(self, blocks: Sequence[BlockParts], x: Tensor, context: Context) -> Tensor:
        """Which patches are repaired, (B, N) bool; arguments as for :meth:`__call__`."""
        return outliers(x[:, context.num_prefix_tokens :], self.neighbours)

    def gather(self, block: BlockParts, normed: Tensor, s1: Tensor) -> Tensor:
        """The sum of what the two passes gather.

        Args:
            block: the last block.
            normed: patches of the first pass, then those of the second, after ``ln_1``: (2 B, N, D).
            s1: S1, (B, N, N).

        Returns:
            (B, heads, N, D // heads)
        """
        k = block.project(normed, "k")
        v = block.project(normed, "v")
        by_keys = sum(F.scaled_dot_product_attention(k, k, v).chunk(2))
        # These weights are the same for all heads and both passes, whose values can be added first.
        by_similarity = softmax_above_mean(s1)[:, None].to(v.dtype) @ sum(v.chunk(2))
        return (by_keys + by_similarity) / 2


def cosines(patches: Tensor) -> Tensor:
    """Cosine similarities of all pairs: (B, N, D) to (B, N, N) float32."""
    unit = F.normalize(patches.float(), dim=-1)
    return unit @ unit.mT


def aggregate(similarity: Tensor, beta: float, tokens: Tensor) -> Tensor:
    """agg: (B, N, N) applied to tokens (B, N, D), float32."""
    weights = similarity.where(similarity >= beta, 0)
    return (weights @ tokens.float()) / (weights.sum(dim=-1, keepdim=True) + 1e-6)


def softmax_above_mean(similarity: Tensor) -> Tensor:
    """The softmax of 3 (S - mean S), negative entries left out but for the diagonal: (B, N, N) to the same.

    Where all are equal, rounding may put every other entry of a row below the mean.
    """
    logits = 3 * (similarity - similarity.mean(dim=(1, 2), keepdim=True))
    is_diagonal = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    return logits.masked_fill((logits < 0) & ~is_diagonal, -torch.inf).softmax(dim=-1)

"""One transformer block of a ViT, taken apart, and the last block of a pass, whose methods share what they compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class BlockParts:
    """The pieces of one transformer block, whichever library built it; D' is the width of all heads, mostly D.

    Attributes:
        ln_1: what the attention's input passes first; the identity in a block that normalises afterwards.
        in_proj_weight: the rows of q, then k, then v: (3D', D), or three of (D', D).
        in_proj_bias: (3D',), three of (D',) or None, or None.
        heads: their number.
        out_proj: the attention's output projection, D' to D.
        scale_1: LayerScale, the norm of a block that normalises afterwards, or the identity.
        ln_2, mlp, scale_2: the same around the FFN.
        q_norm, k_norm: norms of queries and keys, head by head; None for none.
        rotate: rotary embedding of queries and keys (B, heads, T, D' // heads), whose last N are the patches'.
        inner_norm: norm of what the tokens gather, (B, T, D'), before ``out_proj``.
    """

    ln_1: Step
    in_proj_weight: Tensor | Sequence[Tensor]
    in_proj_bias: Tensor | Sequence[Tensor | None] | None
    heads: int
    out_proj: nn.Module
    scale_1: Step
    ln_2: Step
    mlp: Step
    scale_2: Step
    q_norm: Step | None = None
    k_norm: Step | None = None
    rotate: Step | None = None
    inner_norm: Step | None = None

    def apply_ln_1(self, x: Tensor) -> Tensor:
        """The block's input ``x`` (B, T, D) as its attention reads it: after ``ln_1``."""
        return self.ln_1(x)

    def project(self, tokens: Tensor, name: str) -> Tensor:
        """q, k or v as the attention compares them (normed and rotated where the tower does so).

        Args:
            tokens: normalised, (B, T, D): all tokens, or the patches alone.
            name: "q", "k" or "v".

        Returns:
            (B, heads, T, D' // heads)
        """
        weight, bias = self._projection("qkv".index(name))
        heads = F.linear(tokens, weight, bias)
        heads = heads.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        # Values are what is gathered; only what is compared is normed and rotated.
        if name == "v":
            return heads
        norm = {"q": self.q_norm, "k": self.k_norm}[name]
        if norm is not None:
            heads = norm(heads)
        if self.rotate is not None:
            heads = self.rotate(heads)
        return heads

    def _projection(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of q, k or v, which are numbers 0 to 2."""
        weight, bias = self.in_proj_weight, self.in_proj_bias
        # OpenCLIP stacks the three in one matrix; other libraries have a module for each.
        if isinstance(weight, Tensor):
            weight = weight.unflatten(0, (3, -1))
        if bias is None:
            return weight[index], None
        if isinstance(bias, Tensor):
            bias = bias.unflatten(0, (3, -1))
        return weight[index], bias[index]

    def merge(self, heads: Tensor) -> Tensor:
        """Join the heads (B, heads, T, D' // heads) and apply the output projection: X_attn, (B, T, D)."""
        joined = heads.transpose(1, 2).flatten(2)
        if self.inner_norm is not None:
            joined = self.inner_norm(joined)
        return self.scale_1(self.out_proj(joined))

    def feed_forward(self, x: Tensor) -> Tensor:
        """``x`` (B, T, D) and what the FFN adds to it."""
        return x + self.scale_2(self.mlp(self.ln_2(x)))


@dataclass(frozen=True)
class CachedBlock(BlockParts):
    """The last block of a pass: what its input's projections are is computed by the first method that asks.

    Attributes:
        cached_input: the tokens before the block, (B, T, D); nothing is kept of any other tokens.
        cache: what was computed of them, by name.
    """

    cached_input: Tensor | None = None
    cache: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, block: BlockParts, x: Tensor) -> CachedBlock:
        """A block that remembers what is computed of its input ``x``."""
        attributes = {attribute.name: getattr(block, attribute.name) for attribute in fields(BlockParts)}
        return cls(**attributes, cached_input=x)

    def apply_ln_1(self, x: Tensor) -> Tensor:
        # A method may pass other tokens through the block (SC-CLIP's repaired ones), which nobody else asks for.
        if x is not self.cached_input:
            return super().apply_ln_1(x)
        if "normalised" not in self.cache:
            self.cache["normalised"] = super().apply_ln_1(x)
        return self.cache["normalised"]

    def project(self, tokens: Tensor, name: str) -> Tensor:
        # By identity: comparing values would take longer than projecting them again.
        if tokens is not self.cache.get("normalised"):
            return super().project(tokens, name)
        if name not in self.cache:
            self.cache[name] = super().project(tokens, name)
        return self.cache[name]

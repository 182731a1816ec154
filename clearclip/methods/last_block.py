"""The paper in one file: the last block of a CLIP ViT, taken apart (ClearCLIP, ECCV 2024, section 3).

A block computes, from its input X of shape (B, 1+N, D), one class token and N patches:

    X_attn = out_proj(Attention(q, k, v))        q, k, v = in_proj(ln_1(X))
    X_res  = X
    X_sum  = X_res + alpha * X_attn              X_res only where the residual is kept
    X_out  = X_sum + mlp(ln_2(X_sum))            the FFN and its own skip only where the FFN is kept

ClearCLIP finds the noise of CLIP's dense features in X_res and takes X_attn alone, with q-q attention: three
switches, nothing trained. CLIP, MaskCLIP and SCLIP are other settings of the same switches.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.block_parts import BlockParts
from clearclip.methods.method import METHODS, Context, Method, option, short_text
from clearclip.utils.errors import UserError
from clearclip.utils.validators import choice, of_type

#: Which of q, k, v compare with themselves; "qk" is vanilla CLIP, "identity" lets each token see only itself.
ATTENTIONS = {
    "qk": (("q", "k"),),
    "qq": (("q", "q"),),
    "kk": (("k", "k"),),
    "vv": (("v", "v"),),
    "qq+kk": (("q", "q"), ("k", "k")),
    "identity": (),
}
#: The paper's names of the attentions, with residual connection and FFN.
PAPER_ROWS = {"qk": "CLIP", "identity": "MaskCLIP", "qq+kk": "SCLIP"}


class AttentionMethod(Method):
    """A method that changes the attention of the last block, and which of residual connection and FFN are kept.

    Subclasses have the fields ``residual`` and ``ffn``, and say what attention gathers in :meth:`gather`.
    """

    residual: bool
    ffn: bool

    @property
    def factor(self) -> float:
        """Alpha, of X_attn in X_sum."""
        return 1.0

    @property
    def has_logits(self) -> bool:
        """Whether its attention is a softmax of logits, to which SFR can add."""
        return True

    def gather(self, block: BlockParts, tokens: Tensor, v: Tensor, context: Context | None) -> Tensor:
        """What the tokens gather: the attention weights times the values, before ``out_proj``.

        Args:
            block: the last block.
            tokens: its input after ``ln_1``, (B, 1+N, D).
            v: the values, (B, heads, 1+N, D // heads).
            context: see :meth:`__call__`.

        Returns:
            (B, heads, 1+N, D // heads)
        """
        raise NotImplementedError

    def finish(self, block: BlockParts, x: Tensor, gathered: Tensor) -> Tensor:
        """The block's input ``x`` (B, 1+N, D) and what was gathered to the tokens after it, (B, 1+N, D)."""
        x_sum = self.factor * block.merge(gathered)
        if self.residual:
            x_sum = x + x_sum
        if self.ffn:
            return block.feed_forward(x_sum)
        return x_sum

    def with_residual_and_ffn(self) -> AttentionMethod:
        return replace(self, residual=True, ffn=True)

    def without_residual_and_ffn(self) -> AttentionMethod:
        return replace(self, residual=False, ffn=False)

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor, context: Context | None = None) -> Tensor:
        """Tokens before the last block to tokens after it: (B, 1+N, D) to (B, 1+N, D)."""
        block = blocks[-1]
        # X_res alone: an attention that counts for nothing need not be computed.
        if self.factor == 0:
            return block.feed_forward(x) if self.ffn else x
        tokens = block.apply_ln_1(x)
        v = block.project(tokens, "v")
        gathered = self.gather(block, tokens, v, context)
        return self.finish(block, x, gathered)


def attend(
    q: Tensor, k: Tensor, v: Tensor, context: Context | None, bias: Tensor | None = None, width: int | None = None
) -> Tensor:
    """softmax(L + bias) v, with L = q kᵀ / sqrt(width), or what the context's feedback makes of it.

    Args:
        q, k: (B, heads, 1+N, d).
        v: the values, (B, heads, 1+N, any width).
        context: of the method.
        bias: (…, 1+N, 1+N), or None for nothing.
        width: None means d.
    """
    scale, bias = changed_logits(q, context, bias, width)
    value_width = v.shape[-1]
    # PyTorch's kernels that never hold the matrix of weights want values as wide as queries; PEARL's queries are wider.
    if value_width < q.shape[-1]:
        v = F.pad(v, (0, q.shape[-1] - value_width))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)[..., :value_width]


def changed_logits(
    q: Tensor, context: Context | None, bias: Tensor | None = None, width: int | None = None
) -> tuple[float, Tensor | None]:
    """The factor of q kᵀ in the logits, and what is added to them: SFR's feedback changes both.

    Args:
        q: the queries, (B, heads, 1+N, d).
        context: of the method; without feedback nothing is changed.
        bias: what the method itself adds, (…, 1+N, 1+N), or None for nothing.
        width: the factor is 1 / sqrt(width); None means d.
    """
    scale = (width or q.shape[-1]) ** -0.5
    if context is not None and context.feedback is not None:
        # SFR: tau ((1 - lambda) L + lambda S), given as the factor of L and what is added to it.
        factor, feedback = context.feedback
        scale = factor * scale
        bias = feedback if bias is None else feedback + bias
    # Attention wants both in one dtype; biases are computed in fp32 whatever the model's precision.
    if bias is not None:
        bias = bias.to(q.dtype)
    return scale, bias


@METHODS.register_module()
@dataclass(frozen=True)
class LastBlock(AttentionMethod):
    """How the last block is computed. The defaults are ClearCLIP.

    Args:
        attention: a key of :data:`ATTENTIONS`. "qq+kk" adds two softmax maps, as SCLIP does (a sum, not a mean).
        residual: keep X_res in X_sum.
        ffn: keep the feed-forward network and the skip around it.
        alpha: factor of X_attn in X_sum (section 3.3 of the paper sweeps it).

    Raises:
        UserError: unknown attention, alpha not a number, or nothing left (no residual and alpha = 0).
    """

    attention: str = option("qq", choice(*ATTENTIONS))
    residual: bool = option(False, of_type(bool))
    ffn: bool = option(False, of_type(bool))
    alpha: float = option(1.0, of_type(int, float))

    def __post_init__(self):
        super().__post_init__()
        if self.alpha == 0 and not self.residual:
            raise UserError("alpha=0 without the residual leaves nothing of the block; set residual=True or alpha")

    @property
    def label(self) -> str:
        paper_name = self._paper_name()
        if paper_name is not None:
            return paper_name
        residual = "residual" if self.residual else "no residual"
        ffn = "FFN" if self.ffn else "no FFN"
        label = f"{self.attention}, {residual}, {ffn}"
        if self.alpha == 1:
            return label
        return f"{label}, alpha {short_text(self.alpha)}"

    def _paper_name(self) -> str | None:
        """The name of this setting in the paper's tables; None where it has none."""
        if self.alpha != 1 or self.residual != self.ffn:
            return None
        if self.attention == "qq" and not self.residual:
            return "ClearCLIP"
        row = PAPER_ROWS.get(self.attention)
        if row is None or self.residual:
            return row
        # q-k attention without residual and FFN is no row: "CLIP + ClearCLIP" has q-q.
        return None if self.attention == "qk" else f"{row} + ClearCLIP"

    @property
    def has_logits(self) -> bool:
        return bool(ATTENTIONS[self.attention])

    @property
    def factor(self) -> float:
        return self.alpha

    def gather(self, block: BlockParts, tokens: Tensor, v: Tensor, context: Context | None = None) -> Tensor:
        """Only what the switches use is computed: "qq" projects no k, "identity" neither."""
        heads = {"v": v}
        maps = []
        for query_name, key_name in ATTENTIONS[self.attention]:
            for name in (query_name, key_name):
                if name not in heads:
                    heads[name] = block.project(tokens, name)
            q, k = heads[query_name], heads[key_name]
            scale, bias = changed_logits(q, context)
            # softmax(q kᵀ / sqrt(d)) v, without ever holding the matrix of weights
            maps.append(F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale))
        # "identity": every token gathers its own value.
        if not maps:
            return v
        return functools.reduce(torch.add, maps)


METHODS.register_module("ClearCLIP", LastBlock)
METHODS.register_module("SCLIP", functools.partial(LastBlock, "qq+kk", residual=True, ffn=True))
METHODS.register_module("MaskCLIP", functools.partial(LastBlock, "identity", residual=True, ffn=True))
for clip_name in ("CLIP", "vanilla"):
    METHODS.register_module(clip_name, functools.partial(LastBlock, "qk", residual=True, ffn=True))

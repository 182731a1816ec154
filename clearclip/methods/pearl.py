"""PEARL's PA, Procrustes-aligned attention ("Geometry Aligns Semantics for Training-Free Open-Vocabulary Semantic
Segmentation", arXiv 2603.21528): keys are turned towards queries before they are compared.

Per head, with q_c and k_c centred on the means of all tokens, weighted by |q_i| (the class token by 0):

    M = k_cᵀ q_c,   R = M (MᵀM)^(-1/2) by five Newton-Schulz steps
    A = softmax((q (k R)ᵀ + alpha k_c k_cᵀ) / sqrt(d))

Five steps are far from the orthogonal R that they tend to, and part of the method; ``svd`` takes that R.
PEARL's other part smooths stitched similarities: :mod:`clearclip.windows.tlp`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clearclip.methods.block_parts import BlockParts
from clearclip.methods.last_block import AttentionMethod, attend
from clearclip.methods.method import METHODS, Context, option
from clearclip.utils.validators import of_type

NEWTON_SCHULZ_STEPS = 5


@METHODS.register_module()
@dataclass(frozen=True)
class PEARL(AttentionMethod):
    """PA on the last block.

    Args:
        alpha: the share of k-k attention; 0.3 for Cityscapes and ADE20K in PEARL's release.
        steps: Newton-Schulz steps.
        svd: take the orthogonal factor of M by a singular value decomposition instead.
        residual, ffn: keep the residual connection, or the FFN.

    Raises:
        UserError: a value that cannot be meant.
    """

    alpha: float = option(0.08, of_type(int, float, low=0, high=100))
    steps: int = option(NEWTON_SCHULZ_STEPS, of_type(int, low=0, high=100))
    svd: bool = option(False, of_type(bool))
    residual: bool = option(False, of_type(bool))
    ffn: bool = option(False, of_type(bool))

    def gather(self, block: BlockParts, tokens: Tensor, v: Tensor, context: Context) -> Tensor:
        # In fp32: kᵀ q sums over all tokens and overflows fp16.
        q = block.project(tokens, "q").float()
        k = block.project(tokens, "k").float()
        weights = q.norm(dim=-1, keepdim=True)
        weights[:, :, : context.num_prefix_tokens] = 0
        weights = weights / (weights.sum(dim=2, keepdim=True) + 1e-6)
        centred_q = q - (weights * q).sum(dim=2, keepdim=True)
        centred_k = k - (weights * k).sum(dim=2, keepdim=True)
        cross = centred_k.mT @ centred_q
        rotation = orthogonal(cross) if self.svd else newton_schulz(cross, self.steps)
        # Both terms of the logits in one product of vectors twice as long.
        queries = torch.cat([q, self.alpha * centred_k], dim=-1)
        keys = torch.cat([k @ rotation, centred_k], dim=-1)
        return attend(queries, keys, v.float(), context, width=q.shape[-1]).to(v.dtype)


def newton_schulz(cross: Tensor, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """M (MᵀM)^(-1/2) after so many steps, (…, d, d) to the same. fp32: MᵀM overflows fp16."""
    gram = cross.mT @ cross
    # The steps converge for matrices of norm below 1 only.
    size = gram.flatten(-2).norm(dim=-1)[..., None, None].clamp_min(1e-6)
    identity = torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
    root = gram / size + 1e-6 * identity
    inverse_root = identity.expand_as(gram)
    for _ in range(steps):
        factor = (3 * identity - inverse_root @ root) / 2
        root = root @ factor
        inverse_root = factor @ inverse_root
    return cross @ inverse_root / size.sqrt()


def orthogonal(cross: Tensor) -> Tensor:
    """The orthogonal polar factor U Vᵀ of M = U S Vᵀ, (…, d, d) to the same."""
    u, _, vt = torch.linalg.svd(cross)
    return u @ vt

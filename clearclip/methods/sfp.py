"""SFP as released (Jin et al., "Feature Purification Matters: Suppressing Outlier Propagation for Training-Free
Open-Vocabulary Semantic Segmentation", ICCV 2025); the paper's method is another one (docs/family.md).
It is SC-CLIP with other outliers, the 10 patches of largest a_i = 5 rho A[class, i] where it exceeds A[i, i] (A: mean
attention of the last block but one), and other attention: with S1' = S1 where it is at least beta and
M = softmax(3 (S1' - mean S1')), (q-q + k-k + M) / 3 in the first pass and M in the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.block_parts import BlockParts
from clearclip.methods.method import METHODS, Context, option
from clearclip.methods.outliers import largest
from clearclip.methods.scclip import DEFAULTS, SCCLIP, softmax_above_mean
from clearclip.utils.validators import choice, of_type


@METHODS.register_module()
@dataclass(frozen=True)
class SFP(SCCLIP):
    """SFP on the last block. Options of SC-CLIP mean the same; layers are those for 12 blocks whatever the depth.

    Args:
        detector: "som", the above; "l2", the ten patches of largest norm; or "lof", SC-CLIP's.
        class_factor: 5 above.
    """

    detector: str = option("som", choice("som", "l2", "lof"))
    class_factor: float = option(5.0, of_type(int, float, low=0))

    def published_layers(self, blocks: int) -> tuple:
        return DEFAULTS[12]

    def required_blocks(self, blocks: int) -> set[int]:
        return super().required_blocks(blocks) | {blocks - 2}

    def outliers(self, blocks: Sequence[BlockParts], x: Tensor, context: Context) -> Tensor:
        if self.detector == "lof":
            return super().outliers(blocks, x, context)
        first, block = context.num_prefix_tokens, blocks[-2]
        if self.detector == "l2":
            return largest(x[:, first:].float().norm(dim=-1))
        tokens = block.ln_1(context.inputs[len(blocks) - 2])
        q = block.project(tokens, "q").float()
        k = block.project(tokens, "k").float()
        # The weights themselves are compared, so here they have to be held; the mean is over heads.
        attention = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)
        *_, rho = self.layers(len(blocks))
        from_class_token = self.class_factor * rho * attention[:, 0, first:]
        to_itself = attention.diagonal(dim1=1, dim2=2)[:, first:]
        return largest(from_class_token.masked_fill(from_class_token <= to_itself, -torch.inf))

    def gather(self, block: BlockParts, normed: Tensor, s1: Tensor) -> Tensor:
        v, second_v = block.project(normed, "v").chunk(2)
        # The second pass has no attention of its own, so only the first one's queries and keys are computed.
        first_pass = normed[: len(s1)]
        q = block.project(first_pass, "q")
        k = block.project(first_pass, "k")
        m = softmax_above_mean(s1.where(s1 >= self.beta, 0))[:, None].to(v.dtype)
        gathered = m @ v + F.scaled_dot_product_attention(q, q, v) + F.scaled_dot_product_attention(k, k, v)
        return gathered / 3 + m @ second_v

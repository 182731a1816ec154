"""ProxyCLIP: attention by the similarities of a second encoder's features (Lan, Chen, Ke, Wang, Feng and Zhang,
"ProxyCLIP: Proxy Attention Improves CLIP for Open-Vocabulary Segmentation", ECCV 2024, arXiv 2408.04883).

With s the cosine similarities of the second encoder's patches in a window, m their mean, and v the last block's values,
resized to the second encoder's grid:

    A = softmax over j of gamma (s_ij - beta m), negative entries left out but for the diagonal
    X = out_proj(A v)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.block_parts import BlockParts
from clearclip.methods.method import METHODS, Context, Method, option
from clearclip.utils.validators import of_type

#: The second encoder of the paper.
PROXYCLIP_SECOND_ENCODER = "dino-vitb8"
MULTIPLE = 56  # pixels, as published: patches of 8 and 14 fit; of 16, CLIP does not see what is left over


@METHODS.register_module()
@dataclass(frozen=True)
class ProxyCLIP(Method):
    """ProxyCLIP on the last block; features come out on the second encoder's grid.

    Args:
        guide: the second encoder: "dino-vits8", "dino-vits16", "dino-vitb8", "dino-vitb16", "dinov2-vits14",
            "dinov2-vitb14", "dinov2-vitl14", or one of the last three with "-reg". None means the model's own, or
            DINO's ViT-B/8.
        guide_weights: a checkpoint file, or "random"; None means the published ones, from the hub.
        beta: similarities below beta times their mean do not count.
        gamma: factor of the rest before the softmax.
        multiple: windows are padded to multiples of so many pixels. None means the model's own, or 56.

    Raises:
        UserError: a value that cannot be meant.
    """

    guide: str | None = option(None, of_type(str, None))
    guide_weights: str | None = option(None, of_type(str, None))
    beta: float = option(1.2, of_type(int, float, low=-100, high=100))
    gamma: float = option(3.0, of_type(int, float, low=0, high=1000))
    multiple: int | None = option(None, of_type(int, None, low=1))

    needs = ("second encoder",)

    def completed(self, options: Mapping[str, Mapping[str, Any]]) -> Method:
        completed = super().completed(options)
        multiple = MULTIPLE if completed.multiple is None else completed.multiple
        return replace(completed, guide=completed.guide or PROXYCLIP_SECOND_ENCODER, multiple=multiple)

    def grid_size(self, context: Context) -> tuple[int, int]:
        return tuple(context.second.shape[1:3])

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor, context: Context) -> Tensor:
        """Tokens before the last block, (B, 1+N, D), to tokens after it on the second encoder's grid."""
        block, first = blocks[-1], context.num_prefix_tokens
        v = block.project(block.ln_1(x), "v")[:, :, first:]
        channels = v.transpose(2, 3).flatten(1, 2).unflatten(2, context.grid_size)
        resized = F.interpolate(channels, size=self.grid_size(context), mode="bilinear").flatten(2).mT
        gathered = []
        # One attention for all heads, and a window at a time: it has (rows × columns)² entries.
        for window_features, values in zip(context.second.flatten(1, 2), resized, strict=True):
            attention = proxy_attention(window_features, self.beta, self.gamma)
            gathered.append(attention.to(values.dtype) @ values)
        patches = block.merge(torch.stack(gathered).unflatten(2, (block.heads, -1)).transpose(1, 2))
        # Tokens before the patches go along unchanged; the tower leaves them out afterwards.
        return torch.cat([x[:, :first], patches], dim=1)


def proxy_attention(features: Tensor, beta: float, gamma: float) -> Tensor:
    """A for a window's features (N, C) of the second encoder, (N, N) float32."""
    unit = F.normalize(features.float(), dim=-1)
    logits = unit @ unit.T
    # In place: a window of 448 pixels has 3,136 patches of 8, and this matrix 39 MB.
    logits.sub_(beta * logits.mean()).mul_(gamma)
    diagonal = logits.diagonal().clone()
    logits.masked_fill_(logits < 0, -torch.inf)
    # The release has no weights at all in a row whose entries are all negative; here such a patch sees itself.
    logits.diagonal().copy_(diagonal)
    return logits.softmax(dim=-1)

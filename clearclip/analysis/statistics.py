"""Statistics of X_res, X_attn and X_sum in every block, gathered in one forward pass (paper: section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clearclip.encoders.base import DenseEncoder
from clearclip.methods import LastBlock

#: What is measured in a block: its input, what attention adds, and their sum.
PARTS = ("X_res", "X_attn", "X_sum")
_ATTENTION = LastBlock("qk")  # X_attn alone, as it was trained


def frobenius_norm(x: Tensor) -> Tensor:
    """Norm of each image's tokens: (B, T, D) to (B,) float64."""
    return _double(x).flatten(1).norm(dim=1)


def normalized_entropy(x: Tensor) -> Tensor:
    """Entropy of the softmax over all T·D entries of an image, divided by log(T·D): (B, T, D) to (B,) float64.

    1 for a constant, near 0 where one entry outweighs all others. It needs float64: with 10⁵ entries and a range of
    tens, most terms vanish in less.
    """
    log_p = _double(x).flatten(1).log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1) / math.log(log_p.shape[1])


def channel_mean(x: Tensor) -> Tensor:
    """Mean over tokens of every channel: (B, T, D) to (B, D) float64."""
    return _double(x).mean(dim=1)


def _double(x: Tensor) -> Tensor:
    # MPS has no float64.
    return (x.cpu() if x.device.type == "mps" else x).double()


class BlockStatistics(NamedTuple):
    """Statistics of a model with L blocks and D channels; the first axis of the arrays is that of :data:`PARTS`.

    Attributes:
        images: how many were seen.
        norm, norm_std: (3, L) float64, Frobenius norm: mean and standard deviation over images.
        entropy, entropy_std: (3, L) float64, normalised entropy.
        channels: (3, L, D) float64, mean over tokens and images.
    """

    images: int
    norm: np.ndarray
    norm_std: np.ndarray
    entropy: np.ndarray
    entropy_std: np.ndarray
    channels: np.ndarray


@torch.inference_mode()
def collect(encoder: DenseEncoder, batches: Iterable[Tensor]) -> BlockStatistics:
    """Statistics of all blocks, the last one as it was trained.

    Args:
        encoder: an image encoder.
        batches: (B, 3, S, S) normalised images on the encoder's device; B may change, S may not.

    Raises:
        ValueError: there is no image.
    """
    norms, entropies, channels = [], [], 0  # (3, L, B) of each batch, and the sum of (3, L, D) over images
    blocks = encoder.parts
    for images in batches:
        x_res = encoder.tokens(images, "scale_factor")
        found = []
        for block in blocks:
            x_attn = _ATTENTION([block], x_res)
            x_sum = x_res + x_attn
            measures = (frobenius_norm, normalized_entropy, channel_mean)
            found.append([torch.stack([f(x) for x in (x_res, x_attn, x_sum)]).cpu().numpy() for f in measures])
            x_res = block.feed_forward(x_sum)
        norm, entropy, means = (np.stack(values, axis=1) for values in zip(*found, strict=True))
        norms.append(norm)
        entropies.append(entropy)
        channels = channels + means.sum(axis=2)
    if not norms:
        raise ValueError("no image to gather statistics of")
    norm, entropy = np.concatenate(norms, axis=2), np.concatenate(entropies, axis=2)
    seen = norm.shape[2]
    return BlockStatistics(seen, norm.mean(2), norm.std(2), entropy.mean(2), entropy.std(2), channels / seen)

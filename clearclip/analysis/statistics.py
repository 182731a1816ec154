"""Statistics of X_res, X_attn and X_sum in every block, gathered by hooks in one forward pass (paper: section 3).

Only sums are kept, so memory does not grow with the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from clearclip.image_encoder import ImageEncoder
from clearclip.last_block import BlockParts, LastBlock

#: What is measured in a block: its input, what attention adds, and their sum.
PARTS = ("X_res", "X_attn", "X_sum")

#: The last block as it was trained.
UNCHANGED = LastBlock("qk", residual=True, ffn=True)


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


def channel_share(mean: np.ndarray, largest: int) -> float:
    """How much of the sum of all |channel means| the ``largest`` ones hold, 0 to 1.

    Args:
        mean: (D,) channel means.
        largest: how many channels.
    """
    magnitude = np.sort(np.abs(mean))[::-1]
    return float(magnitude[:largest].sum() / magnitude.sum())


def _double(x: Tensor) -> Tensor:
    # MPS knows no float64.
    return (x.cpu() if x.device.type == "mps" else x).double()


class Moments:
    """Mean and standard deviation of arrays that come one after another (Chan's parallel update of Welford's)."""

    def __init__(self, shape: tuple[int, ...]):
        self.count = 0
        self.mean = np.zeros(shape)
        self._squares = np.zeros(shape)

    def add(self, index: tuple[int, ...], values: np.ndarray, first: int) -> None:
        """Take up ``values`` (n, …) at ``index``, which has seen ``first`` values before."""
        n = len(values)
        mean, squares = values.mean(axis=0), ((values - values.mean(axis=0)) ** 2).sum(axis=0)
        delta = mean - self.mean[index]
        self.mean[index] += delta * n / (first + n)
        self._squares[index] += squares + delta**2 * first * n / (first + n)
        self.count = max(self.count, first + n)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation over the values seen."""
        return np.sqrt(self._squares / max(1, self.count))


@dataclass(frozen=True)
class BlockStatistics:
    """Statistics of a model over images; L blocks, D channels; the first axis is that of :data:`PARTS`.

    Attributes:
        model: its name, for people.
        images: how many were seen.
        size: side of the images in pixels.
        norm, norm_std: (3, L), Frobenius norm: mean and standard deviation over images.
        entropy, entropy_std: (3, L), normalised entropy.
        channels: (3, L, D), mean over tokens and images.
    """

    model: str
    images: int
    size: int
    norm: np.ndarray
    norm_std: np.ndarray
    entropy: np.ndarray
    entropy_std: np.ndarray
    channels: np.ndarray

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.norm.shape[1]


def image_side(encoder: nn.Module) -> int:
    """The side in pixels of the images that a tower was trained on (or is fixed to)."""
    if encoder.fixed_size is not None:
        return encoder.fixed_size
    if isinstance(encoder, ImageEncoder):
        return encoder.visual.image_size[0]
    return encoder.vit.patch_embed.img_size[0]


@torch.inference_mode()
def collect(encoder: nn.Module, batches: Iterable[Tensor], model: str = "model") -> BlockStatistics:
    """Statistics of all blocks over images, in one forward pass each.

    Args:
        encoder: an image encoder; its last block runs unchanged meanwhile.
        batches: (B, 3, S, S) normalised images on the encoder's device; B may change, S may not.
        model: its name, for people.

    Raises:
        ValueError: there is no image.
    """
    blocks, width = len(encoder.blocks), encoder.parts[0].in_proj_weight.shape[1]
    norm, entropy = Moments((len(PARTS), blocks)), Moments((len(PARTS), blocks))
    channels = Moments((len(PARTS), blocks, width))
    seen, side = 0, 0

    def take(block: int, x_res: Tensor, x_attn: Tensor) -> None:
        for part, x in enumerate((x_res, x_attn, x_res + x_attn)):
            place = (part, block)
            for moments, measure in ((norm, frobenius_norm), (entropy, normalized_entropy), (channels, channel_mean)):
                moments.add(place, measure(x).cpu().numpy(), seen)

    with _unchanged(encoder), _hooks(encoder, take):
        for images in batches:
            encoder(images)
            seen += len(images)
            side = images.shape[-1]
    if not seen:
        raise ValueError("no image to gather statistics of")
    return BlockStatistics(model, seen, side, norm.mean, norm.std, entropy.mean, entropy.std, channels.mean)


@contextmanager
def _unchanged(encoder: nn.Module) -> Iterator[None]:
    own = encoder.method
    encoder.method = UNCHANGED
    try:
        yield
    finally:
        encoder.method = own


@contextmanager
def _hooks(encoder: nn.Module, take: Callable[[int, Tensor, Tensor], None]) -> Iterator[None]:
    """Call ``take(block, X_res, X_attn)`` in every block: ln_1 reads X_res, LayerScale or an identity gives X_attn."""
    handles = []

    def watch(block: int, parts: BlockParts) -> None:
        held: list[Tensor] = []
        handles.append(parts.ln_1.register_forward_pre_hook(lambda _module, inputs: held.append(inputs[0])))
        handles.append(parts.scale_1.register_forward_hook(lambda _module, _inputs, out: take(block, held.pop(), out)))

    try:
        for block, parts in enumerate(encoder.parts):
            watch(block, parts)
        yield
    finally:
        for handle in handles:
            handle.remove()

"""Statistics of X_res, X_attn and X_sum in every block, gathered in one forward pass (paper: section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clearclip.backbones.dense_encoder import DenseEncoder
from clearclip.methods import LastBlock

#: What is measured in a block: its input, what attention adds, and their sum.
PARTS = ("X_res", "X_attn", "X_sum")
_ATTENTION = LastBlock("qk")  # X_attn alone, as it was trained


def frobenius_norm(x: Tensor) -> Tensor:
    """Norm of each image's tokens: (B, T, D) to (B,)."""
    return x.flatten(1).norm(dim=1)


def normalized_entropy(x: Tensor) -> Tensor:
    """Entropy of the softmax over all T·D entries of an image, divided by log(T·D): (B, T, D) to (B,).

    1 for a constant, near 0 where one entry outweighs all others. It needs float64: with 10⁵ entries and a range of
    tens, most terms vanish in less.
    """
    log_p = x.flatten(1).log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1) / math.log(log_p.shape[1])


@torch.inference_mode()
def collect(encoder: DenseEncoder, batches: Iterable[Tensor]) -> dict[str, pd.DataFrame]:
    """Statistics of all blocks, the last one as it was trained.

    Args:
        encoder: an image encoder.
        batches: (B, 3, S, S) normalised images on the encoder's device; B may change, S may not.

    Returns:
        Three tables: "norms" and "entropy" have a row for each block and part, with mean and standard deviation over
        images; "channels" has the channels of the last block, those with the largest |mean over tokens and images|
        first, and what share of all |means| they and those before them hold.
    """
    rows: list[tuple[int, str, float, float]] = []
    token_means: list[Tensor] = []
    for images in batches:
        x_res = encoder.tokens(images, "scale_factor")
        for number, block in enumerate(encoder.parts(encoder.grid(images)), start=1):
            x_attn = _ATTENTION([block], x_res)
            x_sum = x_res + x_attn
            # In the order of PARTS.
            tokens_of_parts = [_as_float64(x_res), _as_float64(x_attn), _as_float64(x_sum)]
            for name, x in zip(PARTS, tokens_of_parts, strict=True):
                norms = frobenius_norm(x).tolist()
                entropies = normalized_entropy(x).tolist()
                for norm, entropy in zip(norms, entropies, strict=True):
                    rows.append((number, name, norm, entropy))
            x_res = block.feed_forward(x_sum)
        # The loop leaves the last block's tokens; their means are (3, B, D).
        means = [x.mean(dim=1) for x in tokens_of_parts]
        token_means.append(torch.stack(means).cpu())
    table = pd.DataFrame(rows, columns=["block", "part", "norm", "entropy"])
    channel_means = torch.cat(token_means, dim=1).mean(dim=1).numpy()
    return {
        "norms": _means_over_images(table, "norm"),
        "entropy": _means_over_images(table, "entropy"),
        "channels": pd.concat(map(_channel_table, PARTS, channel_means), ignore_index=True),
    }


def _as_float64(x: Tensor) -> Tensor:
    # MPS has no float64.
    if x.device.type == "mps":
        return x.cpu().double()
    return x.double()


def _means_over_images(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A row for each block and part: number of images, mean and standard deviation of a measure."""
    values = table.groupby(["block", "part"], sort=False)[measure]
    # ddof=0: the images are all that is described, and no sample of more.
    columns = {"images": values.count(), measure: values.mean(), f"{measure}_std": values.std(ddof=0)}
    return pd.DataFrame(columns).reset_index()


def _channel_table(part: str, means: np.ndarray) -> pd.DataFrame:
    """A row for each channel, that of the largest |mean| first, and the share that it and those before it hold."""
    table = pd.DataFrame({"part": part, "channel": range(len(means)), "mean": means})
    # Stable, so that equal channels have the same ranks in every run.
    table = table.sort_values("mean", key=abs, ascending=False, kind="stable")
    table.insert(1, "rank", range(1, len(table) + 1))
    sizes = table["mean"].abs()
    return table.assign(share_held=sizes.cumsum() / sizes.sum())

"""Tables of every plotted number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from clearclip.analysis.statistics import PARTS, BlockStatistics
from clearclip.analysis.variants import ALPHA_ATTENTIONS, ALPHAS, X_ATTN, X_RES, X_SUM, ablation, alpha_sweep
from clearclip.evaluation.metric import Scores
from clearclip.last_block import ATTENTIONS, LastBlock
from clearclip.pictures import write_bytes


def block_table(statistics: Sequence[BlockStatistics], quantity: str) -> pd.DataFrame:
    """A row for every model, block and part.

    Args:
        statistics: of several models.
        quantity: "norm" or "entropy".
    """
    rows = []
    for one in statistics:
        mean, std = getattr(one, quantity), getattr(one, f"{quantity}_std")
        for block in range(one.blocks):
            for part, name in enumerate(PARTS):
                rows.append((one.model, one.images, block + 1, name, mean[part, block], std[part, block]))
    return pd.DataFrame(rows, columns=["model", "images", "block", "part", quantity, f"{quantity}_std"])


def channel_table(statistics: Sequence[BlockStatistics], block_of: dict[str, int]) -> pd.DataFrame:
    """A row for every model, part and channel of a block, the largest |mean| first, with the share held so far.

    Args:
        statistics: of several models.
        block_of: the block (from 1) of each model.
    """
    rows = []
    for one in statistics:
        block = block_of[one.model]
        for part, name in enumerate(PARTS):
            mean = one.channels[part, block - 1]
            order = np.argsort(-np.abs(mean), kind="stable")
            held = np.cumsum(np.abs(mean[order])) / np.abs(mean).sum()
            rows += [
                (one.model, block, name, rank, channel, mean[channel], share)
                for rank, (channel, share) in enumerate(zip(order, held, strict=True), start=1)
            ]
    return pd.DataFrame(rows, columns=["model", "block", "part", "rank", "channel", "mean", "share_held"])


def feature_table(scores: dict[LastBlock, Scores]) -> pd.DataFrame:
    """mIoU of features from X_res, X_attn and X_sum."""
    rows = [(name, _miou(scores[variant])) for name, variant in zip(PARTS, (X_RES, X_ATTN, X_SUM), strict=True)]
    return pd.DataFrame(rows, columns=["features", "mIoU"])


def alpha_table(scores: dict[LastBlock, Scores]) -> pd.DataFrame:
    """mIoU for every α; infinity is X_attn alone."""
    rows = [
        (attention, alpha, _miou(scores[variant]))
        for attention in ALPHA_ATTENTIONS
        for alpha, variant in zip((*ALPHAS, float("inf")), alpha_sweep(attention), strict=True)
    ]
    return pd.DataFrame(rows, columns=["attention", "alpha", "mIoU"])


def ablation_table(scores: dict[LastBlock, Scores]) -> pd.DataFrame:
    """mIoU for every attention × residual × FFN."""
    rows = [
        (attention, variant.residual, variant.ffn, kept_parts(variant), _miou(scores[variant]))
        for attention in ATTENTIONS
        for variant in ablation(attention)
    ]
    return pd.DataFrame(rows, columns=["attention", "residual", "ffn", "kept", "mIoU"])


def kept_parts(variant: LastBlock) -> str:
    """What is kept beside attention, for people."""
    if variant.residual:
        return "residual + FFN" if variant.ffn else "residual only"
    return "FFN only" if variant.ffn else "neither"


def of_models(by_model: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of several models as one, with the model in the first column."""
    return pd.concat([table.assign(model=model) for model, table in by_model.items()], ignore_index=True)[
        ["model", *next(iter(by_model.values())).columns]
    ]


def write(table: pd.DataFrame, path: Path) -> Path:
    """Write a CSV, whole or not at all."""
    return write_bytes(path, table.to_csv(index=False, float_format="%.6g").encode())


def _miou(scores: Scores) -> float:
    return scores.summary["mIoU"]

"""The paper's analysis: statistics of residual and attention, block by block, and what they do to segmentation."""

from clearclip.analysis.scores import score_variants
from clearclip.analysis.statistics import (
    PARTS,
    BlockStatistics,
    channel_share,
    collect,
    frobenius_norm,
    normalized_entropy,
)
from clearclip.analysis.variants import ALPHAS, X_ATTN, X_RES, X_SUM, ablation, all_variants

__all__ = [
    "ALPHAS",
    "PARTS",
    "X_ATTN",
    "X_RES",
    "X_SUM",
    "BlockStatistics",
    "ablation",
    "all_variants",
    "channel_share",
    "collect",
    "frobenius_norm",
    "normalized_entropy",
    "score_variants",
]

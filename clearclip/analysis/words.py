"""What the figures show, in words that are computed from the numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clearclip.analysis.statistics import PARTS, BlockStatistics, channel_share

LARGEST = 10  # channels
#: An entropy that is this near to another counts as the same; so does an mIoU, in points.
SAME_ENTROPY, SAME_MIOU = 0.02, 0.1


def describe_statistics(statistics: BlockStatistics, block: int) -> list[str]:
    """Sentences on norm, entropy and channels.

    Args:
        statistics: of one model.
        block: whose channels are described (from 1).
    """
    return [_norms(statistics), _entropy(statistics), _channels(statistics, block)]


def _norms(statistics: BlockStatistics) -> str:
    x_res, x_attn, _ = statistics.norm
    ratio = x_res / x_attn
    larger = [int(block) for block in np.flatnonzero(ratio > 1) + 1]
    last = f"In the last block X_res has a norm of {_plain(x_res[-1])} and X_attn of {_plain(x_attn[-1])}: "
    last += (
        f"the residual is {ratio[-1]:.2f} times as large."
        if ratio[-1] >= 1
        else (f"attention is {1 / ratio[-1]:.2f} times as large.")
    )
    grown = f" Over the blocks the norm of X_res goes from {_plain(x_res[0])} to {_plain(x_res[-1])}."
    return last + grown + f" X_res is the larger one in {len(larger)} of {statistics.blocks} blocks."


def _plain(value: float) -> str:
    """Three digits, and no exponent for numbers that people still read."""
    return f"{float(f'{value:.3g}'):g}"


def _entropy(statistics: BlockStatistics) -> str:
    first, last = statistics.entropy[:, 0], statistics.entropy[:, -1]
    moves = []
    for name, start, end in zip(PARTS, first, last, strict=True):
        verb = "stays near" if abs(end - start) < SAME_ENTROPY else "falls to" if end < start else "rises to"
        moves.append(f"{name} {verb} {end:.3f} (block 1: {start:.3f})")
    gap = last[1] - last[0]
    if abs(gap) < SAME_ENTROPY:
        judged = "X_res and X_attn are equally spread in the end."
    elif gap > 0:
        judged = f"X_res ends {gap:.3f} below X_attn: it is held by fewer of its entries."
    else:
        judged = f"X_res ends {-gap:.3f} above X_attn, which is held by fewer of its entries here."
    return f"Normalised entropy: {', '.join(moves)}. {judged}"


def _channels(statistics: BlockStatistics, block: int) -> str:
    means = statistics.channels[:, block - 1]
    width = means.shape[1]
    count = min(LARGEST, width)
    shares = [100 * channel_share(mean, count) for mean in means]
    top = int(np.abs(means[0]).argmax())
    median = float(np.median(np.abs(means[0])))
    text = f"In block {block} the {count} largest of {width} channels hold "
    text += ", ".join(f"{share:.0f} % of {name}" for name, share in zip(PARTS, shares, strict=True))
    text += f" (even channels would hold {100 * count / width:.0f} %). "
    if median > 0:
        text += f"X_res's largest, channel {top}, is {abs(means[0, top]) / median:.0f} times its median channel."
    return text


def describe_scores(features: pd.DataFrame, alpha: pd.DataFrame, ablation: pd.DataFrame) -> list[str]:
    """Sentences on the mIoU of features, of α and of the ablation."""
    return [
        _features(features),
        *(_alpha(name, part) for name, part in alpha.groupby("attention")),
        _ablation(ablation),
    ]


def _features(features: pd.DataFrame) -> str:
    x_res, x_attn, x_sum = features.set_index("features")["mIoU"].reindex(PARTS)
    change = x_attn - x_sum
    text = f"Features from X_attn alone reach {x_attn:.1f} mIoU, from X_res alone {x_res:.1f}, from X_sum {x_sum:.1f}: "
    if abs(change) < SAME_MIOU:
        return text + "the residual makes no difference."
    return text + (
        f"the residual costs {change:.1f} points." if change > 0 else f"the residual brings {-change:.1f} points."
    )


def _alpha(attention: str, scores: pd.DataFrame) -> str:
    values = scores["mIoU"].to_numpy()
    best = int(values.argmax())
    steps = np.diff(values)
    text = f"With {attention[0]}-{attention[1]} attention, α from 0 to ∞ moves mIoU from {values[0]:.1f} to "
    text += f"{values[-1]:.1f}"
    if (steps >= -SAME_MIOU).all() and values[-1] - values[0] > SAME_MIOU:
        return text + ", higher with every step."
    alpha = scores["alpha"].iloc[best]
    return text + f"; the best is {values[best]:.1f} at α = {'∞' if np.isinf(alpha) else f'{alpha:g}'}."


def _ablation(ablation: pd.DataFrame) -> str:
    best = ablation.loc[ablation["mIoU"].idxmax()]
    kept = {"neither": "neither residual nor FFN", "residual only": "the residual only", "FFN only": "the FFN only"}
    means = ablation.groupby("kept", sort=False)["mIoU"].mean()
    without = ablation.groupby(["residual", "ffn"])["mIoU"].mean()
    residual = without[False].mean() - without[True].mean()
    ffn = without[:, False].mean() - without[:, True].mean()
    return (
        f"The best of {len(ablation)} last blocks has {best['attention']} attention and "
        f"{kept.get(best['kept'], best['kept'])} ({best['mIoU']:.1f}). On average over the attentions: "
        f"{', '.join(f'{name} {mean:.1f}' for name, mean in means.items())}. Dropping the residual changes mIoU by "
        f"{residual:+.1f} points, dropping the FFN by {ffn:+.1f}."
    )

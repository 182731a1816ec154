"""The variants that the paper compares, and tables of every plotted number: one for each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from clearclip.analysis.statistics import PARTS, BlockStatistics
from clearclip.methods import ATTENTIONS, LastBlock, Method

CLIP, CLEARCLIP = LastBlock("qk", residual=True, ffn=True), LastBlock()
#: Features from one part of the last block alone (section 3.1 of the paper); no FFN.
FEATURES = {
    "X_res": LastBlock("qk", residual=True, alpha=0),
    "X_attn": LastBlock("qk"),
    "X_sum": LastBlock("qk", residual=True),
}
#: (attention, α) → X_res + α·X_attn (section 3.3). At 0 there is X_res alone, whatever the attention.
SWEEP = {
    (attention, alpha): LastBlock(attention if alpha else "qk", residual=True, alpha=alpha)
    for attention in ("qk", "qq")
    for alpha in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
}
SWEEP |= {(attention, np.inf): LastBlock(attention) for attention in ("qk", "qq")}  # X_attn alone
#: (attention, what is kept beside it) → the last block.
ABLATION = {
    (attention, kept): LastBlock(attention, residual="residual" in kept, ffn="FFN" in kept)
    for attention in ATTENTIONS
    for kept in ("residual + FFN", "residual only", "FFN only", "neither")
}
#: Every variant that a figure needs, once.
VARIANTS = tuple(dict.fromkeys((*FEATURES.values(), *SWEEP.values(), *ABLATION.values())))
LARGEST = 10  # channels whose share is named


def statistics_tables(statistics: BlockStatistics) -> dict[str, pd.DataFrame]:
    """Norms and entropy by block and part, and the last block's channels, those with the largest |mean| first."""
    count = statistics.norm.shape[1]
    places = {
        "images": statistics.images,
        "block": np.tile(np.arange(1, count + 1), len(PARTS)),
        "part": np.repeat(PARTS, count),
    }
    channels = []
    for part, mean in zip(PARTS, statistics.channels[:, -1], strict=True):
        order = np.argsort(-np.abs(mean), kind="stable")
        share = np.cumsum(np.abs(mean[order])) / np.abs(mean).sum()
        columns = {"rank": np.arange(1, len(mean) + 1), "channel": order, "mean": mean[order], "share_held": share}
        channels.append(pd.DataFrame({"block": count, "part": part, **columns}))

    def by_block(name: str) -> pd.DataFrame:
        return pd.DataFrame({**places, **{key: getattr(statistics, key).ravel() for key in (name, f"{name}_std")}})

    return {
        "norms": by_block("norm"),
        "entropy": by_block("entropy"),
        "channels": pd.concat(channels, ignore_index=True),
    }


def score_tables(miou: Mapping[str, float], methods: Sequence[Method] = ()) -> dict[str, pd.DataFrame]:
    """mIoU of the paper's variants, and of ``methods`` beside CLIP and ClearCLIP if there are any.

    Args:
        miou: label of a method → mIoU.
        methods: more methods.
    """

    def table(variants: Mapping[tuple, Method], *columns: str) -> pd.DataFrame:
        return pd.DataFrame([(*key, miou[one.label]) for key, one in variants.items()], columns=[*columns, "mIoU"])

    tables = {
        "features": table({(name,): one for name, one in FEATURES.items()}, "features"),
        "alpha": table(SWEEP, "attention", "alpha"),
        "ablation": table(ABLATION, "attention", "kept"),
        "methods": table({(one.label,): one for one in (CLIP, *methods, CLEARCLIP)}, "method"),
    }
    return {name: found for name, found in tables.items() if name != "methods" or methods}


def summary(tables: Mapping[str, pd.DataFrame]) -> str:
    """The numbers that people look for first: those of the last block, and every mIoU."""
    parts, shown = {}, []
    if "norms" in tables:
        largest = tables["channels"].query("rank <= @LARGEST")
        parts["norm"] = tables["norms"].groupby("part")["norm"].last()
        parts["entropy"] = tables["entropy"].groupby("part")["entropy"].last()
        parts[f"share of {largest['rank'].max()} channels"] = largest.groupby("part")["share_held"].last()
    if "features" in tables:
        parts["mIoU"] = tables["features"].set_index("features")["mIoU"]
    if parts:
        shown.append(pd.DataFrame(parts).reindex(PARTS).rename_axis("last block").map("{:.3g}".format))
    for name, columns in (("alpha", "alpha"), ("ablation", "kept")):
        if name in tables:
            shown.append(tables[name].pivot_table("mIoU", "attention", columns, sort=False).rename(columns=str))
    if "methods" in tables:
        shown.append(tables["methods"].set_index("method"))
    return "\n\n".join(table.to_string(float_format="{:.1f}".format) for table in shown)

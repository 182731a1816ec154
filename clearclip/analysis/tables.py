"""The variants that the paper compares, their mIoU as tables, and what the tables say in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

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


def score_tables(miou: Mapping[str, float], methods: Sequence[Method] = ()) -> dict[str, pd.DataFrame]:
    """mIoU of the paper's variants, and of ``methods`` beside CLIP and ClearCLIP if there are any.

    Args:
        miou: label of a method → mIoU.
        methods: more methods.
    """
    compared = {(one.label,): one for one in (CLIP, *methods, CLEARCLIP)} if methods else {}
    tables = {
        "features": (["features"], {(name,): one for name, one in FEATURES.items()}),
        "alpha": (["attention", "alpha"], SWEEP),
        "ablation": (["attention", "kept"], ABLATION),
        "methods": (["method"], compared),
    }
    return {
        name: pd.DataFrame([(*key, miou[one.label]) for key, one in variants.items()], columns=[*columns, "mIoU"])
        for name, (columns, variants) in tables.items()
        if variants
    }


def summary(tables: Mapping[str, pd.DataFrame]) -> str:
    """What is looked for first, in sentences: the last block's statistics, and mIoU."""
    said = []
    if "norms" in tables:
        share = tables["channels"].query("rank <= @LARGEST").groupby("part")["share_held"].last()
        for what, values, form in (
            ("norm", tables["norms"].groupby("part")["norm"].last(), "{:.4g}"),
            ("normalised entropy", tables["entropy"].groupby("part")["entropy"].last(), "{:.2f}"),
            (f"share of all |channel means| in the {LARGEST} largest", share, "{:.0%}"),
        ):
            res, attn = (form.format(values[part]) for part in ("X_res", "X_attn"))
            said.append(f"Last block, {what}: X_res {res}, X_attn {attn}.")
    if "features" in tables:
        parts = ", ".join(f"{row.features} {row.mIoU:.1f}" for row in tables["features"].itertuples())
        said.append(f"mIoU of features from one part: {parts}.")
        best = tables["alpha"].loc[tables["alpha"]["mIoU"].idxmax()]
        said.append(
            f"Over the factor of attention, mIoU is largest with {best.attention}, {best.alpha:g}: {best.mIoU:.1f}."
        )
        cells = tables["ablation"].pivot_table("mIoU", "attention", "kept", sort=False)
        said.append(f"mIoU by attention and what is kept beside it:\n{cells.to_string(float_format='{:.1f}'.format)}")
    if "methods" in tables:
        named = ", ".join(f"{row.method} {row.mIoU:.1f}" for row in tables["methods"].itertuples())
        said.append(f"mIoU of methods: {named}.")
    return "\n".join(said)

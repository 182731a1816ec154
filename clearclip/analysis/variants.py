"""The variants that the paper compares, their mIoU as tables, and what the tables say in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    tables: dict[str, tuple[list[str], Mapping[Any, Method]]] = {
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
    """What is looked for first: the last block's statistics, and mIoU."""
    shown = []  # title, table, and how its numbers are written
    if "norms" in tables:
        largest = tables["channels"].query("rank <= @LARGEST")
        last = {
            "norm": tables["norms"].groupby("part", sort=False)["norm"].last(),
            "entropy": tables["entropy"].groupby("part", sort=False)["entropy"].last(),
            f"share of the {LARGEST} largest |channel means|": largest.groupby("part", sort=False)["share_held"].last(),
        }
        shown.append(("last block", pd.DataFrame(last), "{:.3g}"))
    for name, columns in (("features", None), ("alpha", "alpha"), ("ablation", "kept"), ("methods", None)):
        if name in tables:
            table = tables[name].pivot_table("mIoU", tables[name].columns[0], columns, sort=False)
            shown.append((f"mIoU (%): {name}", table.rename_axis(columns=None), "{:.1f}"))
    return "\n\n".join(
        f"{title}\n{table.rename_axis(index=None).to_string(float_format=form.format)}" for title, table, form in shown
    )

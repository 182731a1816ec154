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
SWEEP: dict[tuple[str, float], LastBlock] = {}
for attention in ("qk", "qq"):
    SWEEP[attention, 0.0] = FEATURES["X_res"]
    for alpha in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
        SWEEP[attention, alpha] = LastBlock(attention, residual=True, alpha=alpha)
# X_attn alone comes last, as the limit of large α.
for attention in ("qk", "qq"):
    SWEEP[attention, np.inf] = LastBlock(attention)
#: (attention, what is kept beside it) → the last block.
ABLATION: dict[tuple[str, str], LastBlock] = {}
for attention in ATTENTIONS:
    ABLATION[attention, "residual + FFN"] = LastBlock(attention, residual=True, ffn=True)
    ABLATION[attention, "residual only"] = LastBlock(attention, residual=True)
    ABLATION[attention, "FFN only"] = LastBlock(attention, ffn=True)
    ABLATION[attention, "neither"] = LastBlock(attention)
#: Every variant that a figure needs, once.
VARIANTS = tuple(dict.fromkeys((*FEATURES.values(), *SWEEP.values(), *ABLATION.values())))
LARGEST_CHANNELS = 10  # whose share is named


def score_tables(miou: Mapping[str, float], methods: Sequence[Method] = ()) -> dict[str, pd.DataFrame]:
    """mIoU of the paper's variants, and of ``methods`` beside CLIP and ClearCLIP if there are any.

    Args:
        miou: label of a method → mIoU in percent.
        methods: more methods.
    """
    features = {(name,): method for name, method in FEATURES.items()}
    tables = {
        "features": _score_table(miou, ["features"], features),
        "alpha": _score_table(miou, ["attention", "alpha"], SWEEP),
        "ablation": _score_table(miou, ["attention", "kept"], ABLATION),
    }
    if methods:
        compared = {(method.label,): method for method in (CLIP, *methods, CLEARCLIP)}
        tables["methods"] = _score_table(miou, ["method"], compared)
    return tables


def _score_table(
    miou: Mapping[str, float], columns: Sequence[str], variants: Mapping[tuple[Any, ...], Method]
) -> pd.DataFrame:
    """A row for each variant: what it is called in each column, and its mIoU."""
    rows = [(*names, miou[method.label]) for names, method in variants.items()]
    return pd.DataFrame(rows, columns=[*columns, "mIoU"])


def summary(tables: Mapping[str, pd.DataFrame]) -> str:
    """What is looked for first: the last block's statistics, and mIoU."""
    texts = []
    if "norms" in tables:
        texts.append(_table_text("last block", _last_block_statistics(tables), "{:.3g}"))
    for name, columns in (("features", None), ("alpha", "alpha"), ("ablation", "kept"), ("methods", None)):
        if name in tables:
            rows = tables[name].columns[0]
            table = tables[name].pivot_table("mIoU", rows, columns, sort=False)
            texts.append(_table_text(f"mIoU (%): {name}", table.rename_axis(columns=None), "{:.1f}"))
    return "\n\n".join(texts)


def _last_block_statistics(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Norm, entropy and dominating channels of X_res, X_attn and X_sum in the last block."""
    largest = tables["channels"].query("rank <= @LARGEST_CHANNELS")
    # Rows are in the order of blocks and of ranks, so the last of each part is what is asked for.
    columns = {
        "norm": tables["norms"].groupby("part", sort=False)["norm"].last(),
        "entropy": tables["entropy"].groupby("part", sort=False)["entropy"].last(),
    }
    share_held = largest.groupby("part", sort=False)["share_held"].last()
    columns[f"share of the {LARGEST_CHANNELS} largest |channel means|"] = share_held
    return pd.DataFrame(columns)


def _table_text(title: str, table: pd.DataFrame, number_format: str) -> str:
    return f"{title}\n{table.rename_axis(index=None).to_string(float_format=number_format.format)}"

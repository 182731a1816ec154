"""The figures, in the manner of the paper's figures 2 to 4. Each draws one of the tables."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clearclip.analysis.tables import LARGEST
from clearclip.files import write_bytes

# Okabe and Ito's colours; line style and marker tell the lines apart without them.
STYLES = {
    "X_res": dict(label=r"$X_{res}$", color="#D55E00", linestyle="--", marker="s"),
    "X_attn": dict(label=r"$X_{attn}$", color="#0072B2", linestyle="-", marker="o"),
    "X_sum": dict(label=r"$X_{sum}$", color="#000000", linestyle=":", marker="^", markerfacecolor="none"),
    "qk": dict(label="q-k attention", color="#009E73", linestyle="-", marker="D"),
    "qq": dict(label="q-q attention", color="#CC79A7", linestyle="--", marker="v"),
}
# Three panels are as wide as a page's text, so that letters print at their size. PDF keeps them as text.
SIZES = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "figure.titlesize": 9.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.markersize": 4,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
}
PANEL = (2.45, 2.15)  # inches


def draw_blocks(axes: Axes, table: pd.DataFrame) -> None:
    """Norm or entropy of the three parts, block by block; the band is one standard deviation over images."""
    name = table.columns[-2]
    count = table["block"].max()
    step = -(-count // 8)
    marks = slice((count - 1) % step, None, step)
    for part, rows in table.groupby("part", sort=False):
        blocks, mean, spread = (rows[column].to_numpy() for column in ("block", name, f"{name}_std"))
        line = axes.plot(blocks, mean, markevery=marks, **STYLES[part])[0]
        axes.fill_between(blocks, mean - spread, mean + spread, color=line.get_color(), alpha=0.15, linewidth=0)
    label, limits = ("Frobenius norm", (0, None)) if name == "norm" else ("normalised entropy", (-0.04, 1.04))
    axes.set(ylabel=label, ylim=limits)
    axes.set(xlabel="block", xticks=np.arange(1, count + 1)[marks], xlim=(0.6, count + 0.4))


def draw_channels(axes: Axes, table: pd.DataFrame) -> None:
    """Share of all |channel means| that the largest channels hold, in one block."""
    count = table["rank"].max()
    marks = list(np.unique(np.geomspace(1, count, 8).astype(int)) - 1)
    for part, rows in table.groupby("part", sort=False):
        axes.plot(rows["rank"], 100 * rows["share_held"], markevery=marks, **STYLES[part])
    axes.axvline(LARGEST, color="0.6", linewidth=0.8, zorder=0)
    axes.set(ylabel="share of |mean| (%)", ylim=(0, 104), xscale="log")
    axes.set(xlabel=f"largest channels, block {table['block'].iloc[0]}")
    axes.xaxis.set_major_formatter("{x:g}")


def draw_bars(axes: Axes, table: pd.DataFrame) -> None:
    """mIoU of features from X_res, X_attn and X_sum, or of several methods."""
    styles = [STYLES.get(name, {"label": textwrap.fill(name, 18), "color": "0.5"}) for name in table.iloc[:, 0]]
    bars = axes.barh([style["label"] for style in styles], table["mIoU"], color=[style["color"] for style in styles])
    axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.invert_yaxis()
    axes.set(xlabel="mIoU (%)", xlim=(0, 1.22 * max(1.0, table["mIoU"].max())))


def draw_alpha(axes: Axes, table: pd.DataFrame) -> None:
    """mIoU of X_res + α·X_attn for rising α; the last place is X_attn alone."""
    for attention, rows in table.groupby("attention", sort=False):
        axes.plot(range(len(rows)), rows["mIoU"], **STYLES[attention])
    shown = {0.25: "¼", 0.5: "½", np.inf: "∞"}
    axes.set_xticks(range(len(rows)), [shown.get(alpha, f"{alpha:g}") for alpha in rows["alpha"]])
    axes.set(xlabel=r"$\alpha$ in $X_{res} + \alpha X_{attn}$", ylabel="mIoU (%)", ylim=(0, None))


def draw_ablation(axes: Axes, table: pd.DataFrame) -> None:
    """mIoU of attention × (residual, FFN), as tinted cells."""
    cells = table.pivot_table("mIoU", "attention", "kept", sort=False)
    low, high = cells.min(axis=None), cells.max(axis=None)
    axes.imshow(cells, cmap="cividis", aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        style = {"color": "w" if value < (low + high) / 2 else "k", "weight": "bold" if value == high else "normal"}
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", **style)
    axes.set_xticks(range(len(cells.columns)), [name.replace(" ", "\n", 1) for name in cells.columns])
    axes.set_yticks(range(len(cells)), cells.index)
    axes.set(xlabel="mIoU (%) by what is kept", ylabel="attention")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


#: Name of a figure and its table → its title in the overview of a model, and what draws it.
FIGURES = {
    "norms": ("norm", draw_blocks),
    "entropy": ("entropy", draw_blocks),
    "channels": ("dominating channels", draw_channels),
    "features": ("features of one part", draw_bars),
    "alpha": ("factor of attention", draw_alpha),
    "ablation": ("ablation", draw_ablation),
    "methods": ("methods", draw_bars),
}


def draw(path: Path, panels: Sequence[tuple[str, str, pd.DataFrame]], title: str = "") -> None:
    """Write ``path``.png and .pdf: panels in rows of three, with one legend below.

    Args:
        path: without a suffix.
        panels: of each its title, its name in :data:`FIGURES` and its table.
        title: above all.

    Raises:
        UserError: the place cannot be written.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    legend = {}
    with rc_context(SIZES):
        figure = Figure((max(PANEL[0] * columns, 3.2), PANEL[1] * rows + 0.3), layout="constrained")
        for place, (panel_title, name, table) in enumerate(panels, start=1):
            axes, drawn = figure.add_subplot(rows, columns, place), FIGURES[name][1]
            drawn(axes, table)
            axes.set_title(textwrap.fill(panel_title, 34))
            axes.spines[["top", "right"]].set_visible(False)
            if drawn is not draw_ablation:
                axes.grid(axis="x" if drawn is draw_bars else "y", color="0.9", linewidth=0.7)
            axes.set_axisbelow(True)
            legend.update({line.get_label(): line for line in axes.get_legend_handles_labels()[0]})
        if legend:
            figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=5, frameon=False)
        figure.suptitle(title)
        # Without dates, the same numbers give the same file.
        for suffix, metadata in ((".png", None), (".pdf", {"CreationDate": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], dpi=250, metadata=metadata)
            write_bytes(f"{path}{suffix}", buffer.getvalue())

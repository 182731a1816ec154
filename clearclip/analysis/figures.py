"""The figures, in the manner of the paper's figures 2 to 4: PNG and PDF, and a CSV of every plotted number."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clearclip.analysis import tables
from clearclip.analysis.statistics import PARTS, BlockStatistics
from clearclip.analysis.variants import ALPHA_ATTENTIONS, ALPHAS
from clearclip.pictures import write_bytes

# Okabe and Ito's colours; line style and marker tell the lines apart without them.
STYLES = {
    "X_res": dict(color="#D55E00", linestyle="--", marker="s"),
    "X_attn": dict(color="#0072B2", linestyle="-", marker="o"),
    "X_sum": dict(color="#000000", linestyle=":", marker="^", markerfacecolor="none"),
    "qk": dict(color="#0072B2", linestyle="-", marker="o"),
    "qq": dict(color="#D55E00", linestyle="--", marker="s"),
}
NAMES = {
    "X_res": r"$X_{res}$",
    "X_attn": r"$X_{attn}$",
    "X_sum": r"$X_{sum}$",
    "qk": "q-k",
    "qq": "q-q",
}
# Three panels are as wide as a page's text, so that letters print at their size. PDF keeps them as text.
SIZES = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "legend.fontsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "pdf.fonttype": 42,
}
COLUMNS = 3
PANEL = (2.45, 2.15)  # inches
DPI = 250
LINES = dict(markersize=4, linewidth=1.2)
LARGEST = 10  # channels whose share is named


def draw_norms(axes: Axes, statistics: BlockStatistics) -> None:
    """Frobenius norm of the three parts, block by block; the band is one standard deviation over images."""
    _draw_blocks(axes, statistics, statistics.norm, statistics.norm_std)
    axes.set(ylabel="Frobenius norm", ylim=(0, None))


def draw_entropy(axes: Axes, statistics: BlockStatistics) -> None:
    """Normalised entropy of the three parts, block by block."""
    _draw_blocks(axes, statistics, statistics.entropy, statistics.entropy_std)
    axes.set(ylabel="normalised entropy", ylim=(-0.04, 1.04))


def _draw_blocks(axes: Axes, statistics: BlockStatistics, values: np.ndarray, spread: np.ndarray) -> None:
    blocks = np.arange(1, statistics.blocks + 1)
    step = -(-statistics.blocks // 8)
    marks = slice((statistics.blocks - 1) % step, None, step)
    for part, mean, std in zip(PARTS, values, spread, strict=True):
        style = STYLES[part]
        axes.fill_between(blocks, mean - std, mean + std, color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(blocks, mean, label=NAMES[part], markevery=marks, **LINES, **style)
    axes.set(xlabel="block", xticks=blocks[marks], xlim=(0.6, statistics.blocks + 0.4))


def draw_channels(axes: Axes, statistics: BlockStatistics, block: int) -> None:
    """Share of all |channel means| that the largest channels hold, in one block (from 1)."""
    for part, mean in zip(PARTS, statistics.channels[:, block - 1], strict=True):
        magnitude = np.sort(np.abs(mean))[::-1]
        share = 100 * np.cumsum(magnitude) / magnitude.sum()
        ranks = np.arange(1, len(share) + 1)
        marks = np.unique(np.geomspace(1, len(share), 8).astype(int)) - 1
        axes.plot(ranks, share, label=NAMES[part], markevery=list(marks), **LINES, **STYLES[part])
    axes.axvline(LARGEST, color="0.6", linewidth=0.8, zorder=0)
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300, 1000) if tick <= statistics.channels.shape[2]]
    axes.set(xscale="log", xlabel=f"largest channels, block {block}", ylabel="share of |mean| (%)", ylim=(0, 104))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)


def draw_features(axes: Axes, scores: pd.DataFrame) -> None:
    """mIoU of features from X_res, X_attn and X_sum."""
    values = scores.set_index("features")["mIoU"].reindex(PARTS)
    bars = axes.bar(
        [NAMES[part] for part in PARTS],
        values,
        width=0.62,
        color=[STYLES[part]["color"] for part in PARTS],
        hatch=["//", "", ".."],
        edgecolor="white",
        linewidth=0,
    )
    axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.set(ylabel="mIoU (%)", xlabel="features from", ylim=(0, 1.18 * max(1.0, float(np.nanmax(values)))))


def draw_alpha(axes: Axes, scores: pd.DataFrame) -> None:
    """mIoU of X_res + α·X_attn for rising α; the last place is X_attn alone."""
    places = np.arange(len(ALPHAS) + 1)
    for attention in ALPHA_ATTENTIONS:
        values = scores.loc[scores["attention"] == attention, "mIoU"]
        axes.plot(places, values, label=NAMES[attention], **LINES, **STYLES[attention])
    axes.set_xticks(places, [*(_short(alpha) for alpha in ALPHAS), "∞"])
    axes.set(xlabel=r"$\alpha$ in $X_{res} + \alpha X_{attn}$", ylabel="mIoU (%)", ylim=(0, None))


def _short(alpha: float) -> str:
    return {0.25: "¼", 0.5: "½"}.get(alpha, f"{alpha:g}")


def draw_ablation(axes: Axes, scores: pd.DataFrame) -> None:
    """mIoU of attention × (residual, FFN), as a table of tinted cells."""
    table = scores.pivot(index="attention", columns="kept", values="mIoU")
    table = table.reindex(index=scores["attention"].unique(), columns=scores["kept"].unique())
    values = table.to_numpy()
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    axes.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = value < (low + high) / 2
        weight = "bold" if value == high else "normal"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="w" if dark else "k", weight=weight)
    axes.set_xticks(range(values.shape[1]), [str(name).replace(" ", "\n", 1) for name in table.columns])
    axes.set_yticks(range(values.shape[0]), table.index)
    axes.set(xlabel="kept in the last block", ylabel="attention")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


Draw = Callable[[Axes, object], None]


def panels(draw: Draw, items: Sequence[tuple[str, object]], legend: bool = True) -> Figure:
    """One panel per model, side by side, with one legend below."""
    columns = min(COLUMNS, len(items))
    rows = -(-len(items) // columns)
    figure = _figure(columns, rows, legend)
    for index, (title, item) in enumerate(items):
        axes = figure.add_subplot(rows, columns, index + 1)
        draw(axes, item)
        _finish(axes, title)
    if legend:
        _legend(figure, figure.axes[0])
    return figure


def overview(statistics: BlockStatistics, block: int, scores: dict[str, pd.DataFrame] | None) -> Figure:
    """All panels of one model: statistics above, mIoU below where there is any."""
    count = 2 if scores else 1
    figure = _figure(COLUMNS, count, legend=False)
    top = [figure.add_subplot(count, 3, place) for place in (1, 2, 3)]
    draw_norms(top[0], statistics)
    draw_entropy(top[1], statistics)
    draw_channels(top[2], statistics, block)
    for axes, title in zip(top, ("norm", "entropy", "dominating channels"), strict=True):
        _finish(axes, title)
    if scores:
        low = [figure.add_subplot(count, 3, place) for place in (4, 5, 6)]
        draw_features(low[0], scores["features"])
        draw_alpha(low[1], scores["alpha"])
        draw_ablation(low[2], scores["ablation"])
        for axes, title in zip(low, ("features of one part", "factor of attention", "ablation: mIoU (%)"), strict=True):
            _finish(axes, title)
        low[1].set_ylim(0, 1.3 * low[1].get_ylim()[1])  # room for the legend
        low[1].legend(loc="upper center", ncols=2, frameon=False, columnspacing=1, handlelength=1.7)
    top[2].legend(loc="best", edgecolor="none", framealpha=0.9, borderpad=0.2)
    figure.suptitle(f"{statistics.model}, {statistics.images} images", fontsize=9.5)
    return figure


def save(figure: Figure, path: Path, table: pd.DataFrame | None = None) -> list[Path]:
    """Write ``path``.png and .pdf, and the table as ``path``.csv: each whole or not at all.

    Raises:
        UserError: the place cannot be written.
    """
    written = []
    for suffix in (".png", ".pdf"):
        buffer = io.BytesIO()
        # Without dates, the same numbers give the same file.
        metadata = {"CreationDate": None} if suffix == ".pdf" else None
        figure.savefig(buffer, format=suffix[1:], dpi=DPI, metadata=metadata)
        written.append(write_bytes(path.with_suffix(suffix), buffer.getvalue()))
    if table is not None:
        written.append(tables.write(table, path.with_suffix(".csv")))
    return written


def _figure(columns: int, rows: int, legend: bool) -> Figure:
    import matplotlib

    matplotlib.rcParams.update(SIZES)
    width, height = max(PANEL[0] * columns, 3.2), PANEL[1] * rows + (0.3 if legend else 0)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(textwrap.fill(title, 34))
    if not axes.images:
        axes.grid(axis="y", color="0.9", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False)

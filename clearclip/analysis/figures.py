"""One page of figures, in the manner of the paper's figures 2 to 4. Each draws one of the tables."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clearclip.utils.files import write_bytes

# Okabe and Ito's colours; line style and marker tell the lines apart without them.
STYLES = {
    "X_res": dict(label=r"$X_{res}$", color="#D55E00", linestyle="--", marker="s"),
    "X_attn": dict(label=r"$X_{attn}$", color="#0072B2", linestyle="-", marker="o"),
    "X_sum": dict(label=r"$X_{sum}$", color="#000000", linestyle=":", marker="^", markerfacecolor="none"),
    "qk": dict(label="q-k attention", color="#009E73", linestyle="-", marker="D"),
    "qq": dict(label="q-q attention", color="#CC79A7", linestyle="--", marker="v"),
}
# Three panels are as wide as a page's text, so that letters print at their size.
SIZES = {
    "font.size": 8, "axes.titlesize": 8.5, "figure.titlesize": 9.5, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "lines.markersize": 4, "lines.linewidth": 1.2, "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "grid.color": "0.9",
}  # fmt: skip
PANEL = (2.45, 2.15)  # inches


def lines(x: str, y: str) -> Callable[[Axes, pd.DataFrame], None]:
    """A line for each part or attention; the band is one standard deviation over images, where there is one."""

    def draw_lines(axes: Axes, table: pd.DataFrame) -> None:
        if x == "alpha":
            # As texts, α is evenly spaced; ∞ is X_attn alone, which has no number.
            names = {"0.25": "¼", "0.5": "½", "inf": "∞"}
            table = table.assign(alpha=table["alpha"].map("{:g}".format).replace(names))
        line_column = "part" if "part" in table else "attention"
        for name, rows in table.groupby(line_column, sort=False):
            # A marker at each of 768 channels would hide the line.
            marker_spacing = 0.12 if len(rows) > 30 else None
            axes.plot(rows[x], rows[y], markevery=marker_spacing, **STYLES[name])
            if f"{y}_std" in rows:
                deviation = rows[f"{y}_std"]
                colour = STYLES[name]["color"]
                axes.fill_between(
                    rows[x], rows[y] - deviation, rows[y] + deviation, color=colour, alpha=0.15, linewidth=0
                )
        if x == "block":
            axes.xaxis.get_major_locator().set_params(integer=True)
        # The largest ten channels are what the paper speaks of, and would be a hundredth of the axis.
        if x == "rank":
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(axis="y")

    return draw_lines


def draw_bars(axes: Axes, table: pd.DataFrame) -> None:
    """mIoU of features from X_res, X_attn and X_sum, or of several methods."""
    labels, colours = [], []
    for name in table.iloc[:, 0]:
        # Parts look as they do in the other panels; methods are grey, and their names may be long.
        style = STYLES.get(name, {"label": textwrap.fill(name, 18), "color": "0.5"})
        labels.append(style["label"])
        colours.append(style["color"])
    bars = axes.barh(labels, table["mIoU"], color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.grid(axis="x")


def draw_cells(axes: Axes, table: pd.DataFrame) -> None:
    """mIoU of attention × (residual, FFN), as tinted cells."""
    cells = table.pivot_table("mIoU", "attention", "kept", sort=False)
    low, high = cells.min(axis=None), cells.max(axis=None)
    axes.imshow(cells, cmap="cividis", aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        # White on dark tints; the best cell is bold.
        colour = "w" if value < (low + high) / 2 else "k"
        weight = "bold" if value == high else "normal"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, weight=weight)
    # "residual + FFN" fits under a cell on two lines only.
    column_names = [name.replace(" ", "\n", 1) for name in cells.columns]
    axes.set_xticks(range(len(cells.columns)), column_names)
    axes.set_yticks(range(len(cells)), cells.index)


#: Name of a figure and its table → its title in the page, what draws it, and settings of its axes.
FIGURES: dict[str, tuple[str, Callable[[Axes, pd.DataFrame], None], dict[str, Any]]] = {
    "norms": ("norm", lines("block", "norm"), dict(xlabel="block", ylabel="Frobenius norm", ylim=(0, None))),
    "entropy": ("entropy", lines("block", "entropy"),
                dict(xlabel="block", ylabel="normalised entropy", ylim=(-0.04, 1.04))),
    "channels": ("dominating channels", lines("rank", "share_held"),
                 dict(xlabel="largest channels, last block", ylabel="share of |mean|", ylim=(0, 1.04))),
    "features": ("features of one part", draw_bars, dict(xlabel="mIoU (%)")),
    "alpha": ("factor of attention", lines("alpha", "mIoU"),
              dict(xlabel=r"$\alpha$ in $X_{res} + \alpha X_{attn}$", ylabel="mIoU (%)", ylim=(0, None))),
    "ablation": ("ablation", draw_cells, dict(xlabel="mIoU (%) by what is kept", ylabel="attention")),
    "methods": ("methods", draw_bars, dict(xlabel="mIoU (%)")),
}  # fmt: skip


def draw(path: Path, tables: Mapping[str, pd.DataFrame], title: str) -> None:
    """Write a PNG of all figures, in rows of three, with one legend below.

    Args:
        path: where to.
        tables: by their names in :data:`FIGURES`.
        title: above all.

    Raises:
        UserError: the place cannot be written.
    """
    names = [name for name in FIGURES if name in tables]
    columns, rows = min(3, len(names)), math.ceil(len(names) / 3)
    handle_by_label: dict[str, Any] = {}
    png = io.BytesIO()
    with rc_context(SIZES):
        figure = Figure((max(PANEL[0] * columns, 3.2), PANEL[1] * rows + 0.3), layout="constrained")
        for number, name in enumerate(names, start=1):
            panel_title, draw_panel, settings = FIGURES[name]
            axes = figure.add_subplot(rows, columns, number)
            draw_panel(axes, tables[name])
            axes.set(title=panel_title, **settings)
            handles, labels = axes.get_legend_handles_labels()
            handle_by_label.update(zip(labels, handles, strict=True))
        if handle_by_label:
            # One legend for all panels: colours mean the same in each.
            handles, labels = list(handle_by_label.values()), list(handle_by_label)
            figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
        shaded = "\nshaded: ± 1 standard deviation over images" if "norms" in tables else ""
        figure.suptitle(f"{title}{shaded}")
        figure.savefig(png, dpi=250)
    write_bytes(path, png.getvalue())

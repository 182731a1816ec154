"""The figure of a study of words and thresholds."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clearclip.analysis.figures import SIZES
from clearclip.results.word_tables import WordTable
from clearclip.utils.files import write_bytes

#: Marker of each kind of words; the colour is the method's.
MARKERS = ("o", "x", "s", "^", "D")


def draw_word_table(study: WordTable, path: Path) -> Path:
    """Write a PNG: on the left mIoU by kind of words, on the right mIoU by threshold.

    Raises:
        UserError: the place cannot be written.
    """
    height = max(2.6, 0.28 * len(study.methods) + 1.2)
    buffer = io.BytesIO()
    with rc_context(SIZES):
        figure = Figure((7.4, height), layout="constrained")
        words_axes, curve_axes = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _draw_words(words_axes, study)
        _draw_curves(curve_axes, study)
        figure.suptitle(study.title)
        figure.savefig(buffer, dpi=200)
    return write_bytes(path, buffer.getvalue())


def _draw_words(axes: Axes, study: WordTable) -> None:
    """A row for each method, a marker for each kind of words; a bar from the lowest to the highest draw."""
    kind_count = len(study.kinds)
    for number, words_kind in enumerate(study.kinds):
        # Kinds stand a little below each other, so that equal scores do not hide each other.
        offset = (number - (kind_count - 1) / 2) * 0.16
        rows, means, below, above = [], [], [], []
        for row, method in enumerate(study.methods):
            score = method.words[words_kind]
            rows.append(row + offset)
            means.append(score.mean)
            # Matplotlib wants the lengths of the bar's two halves, not its ends.
            below.append(score.mean - score.lowest)
            above.append(score.highest - score.mean)
        marker = MARKERS[number % len(MARKERS)]
        axes.errorbar(means, rows, xerr=[below, above], fmt=marker, linestyle="none", label=words_kind, capsize=2)
    axes.set_yticks(range(len(study.methods)), [method.name for method in study.methods])
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set(title="by class words", xlabel="mIoU (%)")
    axes.legend(frameon=False, fontsize=6.5)


def _draw_curves(axes: Axes, study: WordTable) -> None:
    """A line for each method with the protocol's scale; the protocol's threshold is marked."""
    colours = colormaps["viridis"].resampled(max(2, len(study.methods)))
    line_styles = ("-", "--", ":")
    for number, method in enumerate(study.methods):
        thresholds, scores = zip(*method.thresholds[0].curve, strict=True)
        # Neighbouring colours are alike, so neighbouring lines differ in their style, too.
        line_style = line_styles[number % len(line_styles)]
        axes.plot(thresholds, scores, color=colours(number), label=method.name, linestyle=line_style)
    protocol_thd = study.methods[0].thresholds[0].protocol_thd
    axes.axvline(protocol_thd, color="0.6", linewidth=0.8, label="protocol")
    axes.grid(axis="y")
    axes.set(title="by threshold, published words", xlabel="prob_thd", ylabel="mIoU (%)", xlim=(0, 1))
    axes.legend(frameon=False, fontsize=5.5, ncols=2)

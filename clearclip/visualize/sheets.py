"""Sheets of pictures with titles and a legend. Nothing is clipped: a sheet grows with its text."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

import cv2
import numpy as np
from PIL import Image

from clearclip.visualize.colours import IGNORED, Palette, class_palette
from clearclip.visualize.paint import colour_map, fit, overlay

#: In pixels, since at 72 dpi a point is one, and whatever the user's own Matplotlib style is.
STYLE = {
    "figure.dpi": 72, "savefig.bbox": "tight", "image.interpolation": "nearest", "image.aspect": "auto",
    "axes.titlelocation": "left", "text.parse_math": False, "legend.loc": "upper left", "legend.frameon": False,
    "legend.borderpad": 0, "legend.borderaxespad": 0, "legend.handlelength": 1, "legend.handleheight": 1,
}  # fmt: skip

Legend = Sequence[tuple[str, Sequence[int]]]


def sheet(
    panels: Sequence[tuple[str, np.ndarray | Image.Image]],
    columns: int,
    legend: Legend = (),
    note: str = "",
    *,
    scale: tuple[float, float] | None = None,
    texts: Sequence[tuple[int, int, str]] = (),
) -> Image.Image:
    """Pictures in rows; each of their pixels is one of the sheet's.

    Args:
        panels: title and picture, (H, W, 3) uint8, row by row.
        columns: of a full row.
        legend: names and RGB colours.
        note: a line above the legend, or below the colour bar.
        scale: the ends of a colour bar, in place of a legend.
        texts: upon the last picture: x and y of the centre, and the text.
    """
    # Late, so that what draws nothing needs no Matplotlib. Not pyplot, which keeps its figures.
    from matplotlib import cm, colors, patches, patheffects, style
    from matplotlib.figure import Figure

    pictures, columns = [np.asarray(picture) for _, picture in panels], min(columns, len(panels))
    widths = [max(picture.shape[1] for picture in pictures[k::columns]) for k in range(columns)]
    heights = [max(len(one) for one in pictures[k : k + columns]) for k in range(0, len(panels), columns)]
    letter = int(np.clip(sum(widths) / 72, 14, 26))
    widths = [max(width, 10 * letter) for width in widths]
    fill = [textwrap.TextWrapper(int(width / letter / 0.6)).fill for width in (*widths, sum(widths))]
    titles = [fill[k % columns](short(title)) for k, (title, _) in enumerate(panels)]
    lines = max((title.count("\n") + bool(title) for title in titles[columns:]), default=0)
    gap = letter + round(1.3 * letter) * lines
    width, height = sum(widths) + letter * (columns - 1), sum(heights) + gap * (len(heights) - 1)
    spaces = {"wspace": letter / np.mean(widths), "hspace": gap / np.mean(heights)}
    edges = {"left": 0, "right": 1, "bottom": 0, "top": 1, "width_ratios": widths, "height_ratios": heights}
    sizes = {"font.size": letter, "axes.titlesize": letter, "axes.titlepad": 0.3 * letter}
    buffer = io.BytesIO()
    with style.context(["default", STYLE | sizes]):
        figure = Figure((width / 72, height / 72))
        grid = figure.add_gridspec(len(heights), columns, **spaces, **edges)
        for k, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
            axes = figure.add_subplot(grid[k], title=title)
            axes.imshow(picture)
            axes.set(xlim=(-0.5, widths[k % columns] - 0.5), ylim=(heights[k // columns] - 0.5, -0.5))
            axes.set_axis_off()
        for x, y, text in texts:
            outline = [patheffects.withStroke(linewidth=letter / 6, foreground="black")]
            axes.text(x, y, text, ha="center", va="center", color="white", path_effects=outline)
        if scale:
            values = cm.ScalarMappable(colors.Normalize(*scale), "magma")
            bar = figure.add_axes((0, -1.5 * letter / height, 1, letter / height))
            figure.colorbar(values, bar, orientation="horizontal").set_label(fill[-1](note), loc="left")
        elif legend or note:
            names = [short(name) for name, _ in legend]
            fitting = int(width / letter / (0.6 * max(map(len, names), default=0) + 3))
            colours = [np.array(colour) / 255 for _, colour in legend]
            handles = [patches.Patch(label=name, fc=one, ec="0.35") for name, one in zip(names, colours, strict=True)]
            place = {"bbox_to_anchor": (0, -letter / height), "title": fill[-1](note), "alignment": "left"}
            figure.legend(handles=handles, ncols=max(1, fitting), **place)
        figure.savefig(buffer, pad_inches=letter / 72, pil_kwargs={"compress_level": 1})
    return Image.open(buffer).convert("RGB")


def short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 40 else f"{text[:39].rstrip()}…"


def result_picture(image: np.ndarray, labels: np.ndarray, names: Sequence[str], palette: Palette) -> Image.Image:
    """Photo, overlay and map, with a legend of each class's share of the image, the largest first.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W), integers.
        names, palette: of the classes, in label order.

    Raises:
        UserError: a palette that does not fit the names.
    """
    colours, (height, width) = class_palette(names, palette), labels.shape
    wide = width > 1.7 * height
    photo, shown = (fit(array, 1200 if wide else 800) for array in (image, labels))
    panels = [
        (f"image · {width} × {height}", photo),
        ("overlay", overlay(photo, shown, colours)),
        ("classes", colour_map(shown, colours)),
    ]
    shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
    found = [k for k in np.argsort(-shares, kind="stable") if shares[k]]
    texts = []
    for k in found:
        depth = cv2.distanceTransform(np.pad(shown == k, 1).astype(np.uint8), cv2.DIST_L2, 3)
        if depth.max() > 8 * len(names[k]):  # the name lies within a circle of the class
            y, x = np.unravel_index(depth.argmax(), depth.shape)
            texts.append((x - 1, y - 1, names[k]))
    legend = [(f"{short(names[k])} · {shares[k]:.1%}", colours[k]) for k in found]
    missing = len(names) - len(found)
    note = f"share of the image; {missing} of {len(names)} classes were not found" if missing else ""
    return sheet(panels, 1 if wide else 3, legend, note, texts=texts)


def grid_picture(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], legend: Legend) -> Image.Image:
    """Images and label maps in rows, with a legend of the classes that occur.

    Args:
        rows: (H, W, 3) uint8 images and (H, W) integer label maps.
        titles: of the panels, row by row; those that are left out stay blank.
        legend: name and RGB colour of each class, in label order; labels beyond it (such as 255) are "other".
    """
    colours = np.array([colour for _, colour in legend], dtype=np.uint8).reshape(-1, 3)
    pictures = [np.asarray(picture) for row in rows for picture in row]
    found = set().union(*(np.unique(picture).tolist() for picture in pictures if picture.ndim == 2))
    listed = [legend[label] for label in sorted(found) if 0 <= label < len(legend)]
    if len(listed) < len(found):
        listed.append(("other", IGNORED))
    shown = [fit(picture, min(640, 2000 // len(rows[0]))) for picture in pictures]
    shown = [picture if picture.ndim == 3 else colour_map(picture, colours) for picture in shown]
    return sheet(list(zip_longest(titles, shown, fillvalue="")), len(rows[0]), listed)

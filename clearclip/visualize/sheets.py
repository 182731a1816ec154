"""Sheets of pictures with titles and a legend. Nothing is clipped: a sheet grows with its text."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clearclip.utils.errors import UserError
from clearclip.utils.files import write_bytes
from clearclip.visualize.colours import IGNORED, Palette, class_palette, colour_map, fit, overlay

Legend = Sequence[tuple[str, Sequence[int]]]


@cache
def _font_file(letters: frozenset[str]) -> str:
    """The first font that has all ``letters``: Matplotlib's DejaVu Sans, else one of the system."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    own, wanted = str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), set(map(ord, letters))
    if wanted <= FT2Font(own).get_charmap().keys():
        return own
    from matplotlib.font_manager import findSystemFonts

    for file in sorted(findSystemFonts()):
        try:
            if wanted <= FT2Font(file).get_charmap().keys():
                return file
        except (OSError, RuntimeError):  # kinds of fonts that FreeType does not read
            continue
    warnings.warn(
        "no font of this system has all letters of the class names; some are drawn as boxes. Install one, such as "
        "Noto Sans CJK (fonts-noto-cjk)",
        stacklevel=2,
    )
    return own


def sheet(
    panels: Sequence[tuple[str, np.ndarray | Image.Image]],
    columns: int,
    legend: Legend = (),
    note: str = "",
    *,
    title: str = "",
    scale: tuple[float, float] | None = None,
    texts: Sequence[tuple[int, int, str]] = (),
) -> Image.Image:
    """Pictures in rows; each of their pixels is one of the sheet's.

    Args:
        panels: title and picture, (H, W, 3) uint8, row by row.
        columns: of a full row.
        legend: names and RGB colours.
        note: a line above the legend, or below the colour bar.
        title: a line above all.
        scale: the ends of a colour bar, in place of a legend.
        texts: upon the last picture: x and y of the centre, and the text.
    """
    pictures, columns = [np.asarray(picture) for _, picture in panels], min(columns, len(panels))
    widths = [max(picture.shape[1] for picture in pictures[k::columns]) for k in range(columns)]
    letter = int(np.clip(sum(widths) / 72, 14, 26))
    widths = [max(width, 10 * letter) for width in widths]
    total, line = sum(widths) + letter * (columns - 1), round(1.3 * letter)
    titles, names = [short(name) for name, _ in panels], [short(name) for name, _ in legend]
    said = "".join((*titles, *names, *(text for *_, text in texts), title, note))
    font = ImageFont.truetype(_font_file(frozenset(said) - {" ", "\n"}), letter)

    def wrap(text: str, width: int) -> list[str]:
        return textwrap.wrap(text, max(1, int(width * len(text) / max(1, font.getlength(text)))))

    placed: list[tuple[int, int, str | Image.Image]] = []  # x, y and what is drawn there
    y = letter

    def write(text: str, below: int) -> None:
        nonlocal y
        parts = wrap(text, total)
        placed.extend((letter, y + line * n, part) for n, part in enumerate(parts))
        y += line * len(parts) + below * bool(text)

    write(title, letter // 2)
    for start in range(0, len(panels), columns):
        row, x = range(start, min(start + columns, len(panels))), letter
        wrapped = [wrap(titles[k], widths[k - start]) for k in row]
        below = y + line * max(map(len, wrapped)) + letter // 3
        for k, parts in zip(row, wrapped, strict=True):
            top = below - letter // 3 - line * len(parts)
            placed += [(x, top + line * n, part) for n, part in enumerate(parts)]
            placed.append((x, below, Image.fromarray(pictures[k])))
            last = (x, below)
            x += widths[k - start] + letter
        y = below + max(len(pictures[k]) for k in row) + letter
    if scale:
        ramp = np.linspace(0, 255, total).round().astype(np.uint8)[None].repeat(letter, axis=0)
        placed.append((letter, y, Image.fromarray(cv2.applyColorMap(ramp, cv2.COLORMAP_MAGMA)[..., ::-1].copy())))
        for place in np.linspace(0, 1, 5):
            text = f"{scale[0] + place * (scale[1] - scale[0]):.2f}"
            placed.append((letter + round(place * (total - font.getlength(text))), y + line, text))
        y += 2 * line + letter // 2
    write(note, letter // 3)
    cell = round(max(map(font.getlength, names), default=0)) + 3 * letter
    fitting = max(1, (total + letter) // cell)
    for k, (name, (_, colour)) in enumerate(zip(names, legend, strict=True)):
        x, top = letter + k % fitting * cell, y + k // fitting * line
        swatch = Image.new("RGB", (letter, letter), (89, 89, 89))
        swatch.paste(tuple(int(value) for value in colour), (1, 1, letter - 1, letter - 1))
        placed += [(x, top, swatch), (x + round(1.5 * letter), top, name)]
    y += -(-len(names) // fitting) * line
    right = max(x + (font.getlength(one) if isinstance(one, str) else one.width) for x, _, one in placed)
    page = Image.new("RGB", (round(max(right, total + letter)) + letter, y + letter), "white")
    draw = ImageDraw.Draw(page)
    for x, top, one in placed:
        if isinstance(one, str):
            draw.text((x, top), one, "black", font)
        else:
            page.paste(one, (x, top))
    for x, top, text in texts:
        draw.text((last[0] + x, last[1] + top), text, "white", font, "mm", stroke_width=2, stroke_fill="black")
    return page


def short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 40 else f"{text[:39].rstrip()}…"


def result_picture(
    image: np.ndarray, labels: np.ndarray, names: Sequence[str], palette: Palette, title: str = ""
) -> Image.Image:
    """Photo, overlay and map, with a legend of each class's share of the image, the largest first.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W), integers.
        names, palette: of the classes, in label order.
        title: above all.

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
    return sheet(panels, 1 if wide else 3, legend, note, title=title, texts=texts)


def grid_picture(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], legend: Legend, title: str = ""
) -> Image.Image:
    """Images and label maps in rows, with a legend of the classes that occur.

    Args:
        rows: (H, W, 3) uint8 images and (H, W) integer label maps.
        titles: of the panels, row by row; those that are left out stay blank.
        legend: name and RGB colour of each class, in label order; labels beyond it (such as 255) are "other".
        title: above all.
    """
    colours = np.array([colour for _, colour in legend], dtype=np.uint8).reshape(-1, 3)
    pictures = [np.asarray(picture) for row in rows for picture in row]
    found = set().union(*(np.unique(picture).tolist() for picture in pictures if picture.ndim == 2))
    listed = [legend[label] for label in sorted(found) if 0 <= label < len(legend)]
    if len(listed) < len(found):
        listed.append(("other", IGNORED))
    shown = [fit(picture, min(640, 2000 // len(rows[0]))) for picture in pictures]
    shown = [picture if picture.ndim == 3 else colour_map(picture, colours) for picture in shown]
    return sheet(list(zip_longest(titles, shown, fillvalue="")), len(rows[0]), listed, title=title)


def save_image(image: Image.Image | np.ndarray, path: str | Path, lossless: bool = False) -> Path:
    """Write an image; the suffix says the format.

    Args:
        image: a PIL image, or a uint8 array (uint16 for PNG label maps).
        path: where to; folders are made.
        lossless: refuse formats that may change a pixel.

    Returns:
        the path.

    Raises:
        UserError: an unknown or refused suffix, an image too large for the format, or a place that cannot be written.
    """
    path = Path(path)
    format_name = Image.registered_extensions().get(path.suffix.lower())
    if lossless and format_name not in ("PNG", "TIFF"):
        raise UserError(f"{path}: label maps need a format that keeps every value; use .png (or .tif)")
    if format_name is None or format_name not in Image.SAVE:
        raise UserError(f"{path} has no suffix of an image format that can be written; use .png or .jpg")
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if format_name == "JPEG":
        image = image.convert("RGB")
    buffer = io.BytesIO()
    try:
        # Each format takes the option that it knows; PNG's own level is slow and saves a few per cent.
        image.save(buffer, format=format_name, quality=92, compress_level=4)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written as {format_name} ({error}); use .png") from error
    return write_bytes(path, buffer.getvalue())

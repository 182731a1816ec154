"""Panels with titles and one legend, laid out on a white sheet. Nothing is clipped: cells grow with their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clearclip.pictures.lettering import font, shorten, text_size

INK, FAINT, PAPER = (28, 28, 28), (110, 110, 110), (255, 255, 255)


@dataclass(frozen=True)
class Panel:
    """A picture at its final size, and what stands above it."""

    image: Image.Image
    title: str = ""


@dataclass(frozen=True)
class LegendEntry:
    """A colour, its name, and what stands behind the name (such as its share)."""

    name: str
    colour: Sequence[int]
    note: str = ""


def fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width scaled so that the longer is ``side``; small images by a whole factor, so pixels stay even."""
    scale = side / max(size)
    if scale >= 2:
        scale = int(scale)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_photo(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 to ``size`` (height, width), smoothly."""
    smaller = size[0] < image.shape[0] or size[1] < image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) integers to ``size`` (height, width), each pixel that of the nearest."""
    rows = ((np.arange(size[0]) + 0.5) * labels.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * labels.shape[1] / size[1]).astype(int)
    return labels[rows[:, None], columns]


def compose(
    rows: Sequence[Sequence[Panel]],
    legend: Sequence[LegendEntry] = (),
    *,
    row_titles: Sequence[str] = (),
    footnote: str = "",
) -> Image.Image:
    """Lay panels out in rows, with the legend below.

    Args:
        rows: of panels; they may differ in length and size.
        legend: entries, read down and then across.
        row_titles: what stands above each row.
        footnote: a line below the legend.

    Returns:
        an RGB image, as large as its content needs.
    """
    count = max(len(row) for row in rows)
    widths = [max(row[k].image.width for row in rows if k < len(row)) for k in range(count)]
    letter = int(np.clip(sum(widths) / 72, 14, 26))
    widths = [max(width, 10 * letter) for width in widths]
    plain, bold = font(letter), font(letter, bold=True)
    line = round(1.25 * text_size("", plain)[1])
    gap, margin = letter, round(1.2 * letter)
    width = max(2 * margin + sum(widths) + gap * (count - 1), 32 * letter)

    tops, y = [], margin
    for index, row in enumerate(rows):
        above = line * (bool(index < len(row_titles) and row_titles[index]) + any(panel.title for panel in row))
        tops.append((y, above))
        y += above + max(panel.image.height for panel in row) + gap
    key = _Legend(legend, width - 2 * margin, letter)
    footnotes = _wrap(footnote, plain, width - 2 * margin)
    height = y + key.height + line * len(footnotes) + margin - gap * (not legend and not footnote)

    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    left = (width - sum(widths) - gap * (count - 1)) // 2
    for index, (row, (top, above)) in enumerate(zip(rows, tops, strict=True)):
        if index < len(row_titles) and row_titles[index]:
            title = shorten(row_titles[index], bold, width - 2 * margin)
            draw.text((left, top), title, fill=INK, font=bold)
        x = left
        for panel, cell in zip(row, widths, strict=False):
            title = shorten(panel.title, plain, cell)
            draw.text((x, top + above - line), title, fill=INK, font=plain)
            sheet.paste(panel.image, (x, top + above))
            x += cell + gap
    key.draw(draw, margin, y)
    for number, text in enumerate(footnotes):
        draw.text((margin, y + key.height + number * line), text, fill=FAINT, font=plain)
    return sheet


class _Legend:
    """Entries in as many columns, each as wide as it needs, as fit into ``width`` pixels."""

    def __init__(self, entries: Sequence[LegendEntry], width: int, letter: int):
        self.letters = font(letter)
        self.swatch = round(1.15 * letter)
        self.line = round(1.45 * letter)
        self.space = round(0.6 * letter)
        # A single long name must not push all others into one column.
        self.names = [shorten(entry.name, self.letters, 0.45 * width) for entry in entries]
        self.entries = entries
        needed = [
            self.swatch + self.space + text_size(name, self.letters)[0] + self._note_width(entry)
            for name, entry in zip(self.names, entries, strict=True)
        ]
        self.rows = 0
        self.widths: list[int] = []
        for rows in range(1, len(entries) + 1):
            self.rows = rows
            self.widths = [max(needed[start : start + rows]) for start in range(0, len(needed), rows)]
            if sum(self.widths) + 3 * self.space * (len(self.widths) - 1) <= width:
                break
        self.height = self.rows * self.line + self.space // 2

    def _note_width(self, entry: LegendEntry) -> int:
        return text_size(entry.note, self.letters)[0] + 2 * self.space if entry.note else 0

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        for index, (name, entry) in enumerate(zip(self.names, self.entries, strict=True)):
            column = index // self.rows
            x = left + sum(self.widths[:column]) + 3 * self.space * column
            middle = top + index % self.rows * self.line + self.line // 2
            box = [x, middle - self.swatch // 2, x + self.swatch - 1, middle + (self.swatch - 1) // 2]
            draw.rectangle(box, fill=tuple(int(value) for value in entry.colour), outline=(90, 90, 90))
            draw.text((x + self.swatch + self.space, middle), name, INK, self.letters, anchor="lm")
            draw.text((x + self.widths[column], middle), entry.note, FAINT, self.letters, anchor="rm")


def _wrap(text: str, letters: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of at most ``width`` pixels; a word wider than that is shortened."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and letters.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shorten(word, letters, width))
    return lines

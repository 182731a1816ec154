"""Sheets of pictures with titles and a legend. Nothing is clipped: a sheet grows with its text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import cv2
import numpy as np
from PIL import Image

from clearclip.visualize.colours import IGNORED, Palette, class_palette, colour_map, fit, overlay
from clearclip.visualize.page_layout import PageImage, PageLayout, PageText

Legend = Sequence[tuple[str, Sequence[int]]]
#: Grey of the line around a legend's colours.
SWATCH_BORDER = (89, 89, 89)


def sheet_page(
    panels: Sequence[tuple[str, np.ndarray | Image.Image]],
    columns: int,
    legend: Legend = (),
    note: str = "",
    *,
    title: str = "",
    scale: tuple[float, float] | None = None,
    texts: Sequence[tuple[int, int, str]] = (),
) -> PageLayout:
    """Pictures in rows; each of their pixels is one of the sheet's.

    Args:
        panels: title and picture, (H, W, 3) uint8, row by row.
        columns: of a full row.
        legend: names and RGB colours.
        note: a line above the legend, or below the colour bar.
        title: a line above all.
        scale: the ends of a colour bar, in place of a legend.
        texts: upon the last picture: x and y of the centre, and the text.

    Returns:
        the page: ``draw()`` gives a PIL image, :func:`save_image` writes it in any format.
    """
    pictures = [np.asarray(picture) for _, picture in panels]
    columns = min(columns, len(panels))
    picture_widths = []
    for column in range(columns):
        pictures_of_column = pictures[column::columns]
        picture_widths.append(max(picture.shape[1] for picture in pictures_of_column))
    # Letters grow with the page, which a paper or a projector shrinks to its own width.
    letter = int(np.clip(sum(picture_widths) / 72, 14, 26))
    # A title needs some width, however narrow its picture is.
    column_widths = [max(width, 10 * letter) for width in picture_widths]
    builder = _SheetBuilder(PageLayout(letter), column_widths)
    builder.add_lines(title, letter // 2)
    for start in range(0, len(panels), columns):
        row_titles = [short(name) for name, _ in panels[start : start + columns]]
        builder.add_row(row_titles, pictures[start : start + columns])
    if scale:
        builder.add_colour_bar(*scale)
    builder.add_lines(note, letter // 3)
    builder.add_legend(legend)
    last_picture = builder.last_picture
    for x, y, text in texts:
        builder.page.texts.append(PageText(last_picture.x + x, last_picture.y + y, text, outlined=True))
    return builder.page


class _SheetBuilder:
    """Places the parts of a sheet on a page from the top down; ``y`` is where the next part begins."""

    def __init__(self, page: PageLayout, column_widths: Sequence[int]):
        self.page = page
        self.column_widths = column_widths
        self.letter = page.letter
        self.line_height = round(1.3 * page.letter)
        self.content_width = sum(column_widths) + page.letter * (len(column_widths) - 1)
        self.y = page.letter
        self.last_picture: PageImage | None = None

    def add_lines(self, text: str, space_below: int) -> None:
        """A paragraph as wide as the sheet; nothing for an empty text."""
        if not text:
            return
        for line in self.page.wrap(text, self.content_width):
            self.page.texts.append(PageText(self.letter, self.y, line))
            self.y += self.line_height
        self.y += space_below

    def add_row(self, titles: Sequence[str], pictures: Sequence[np.ndarray]) -> None:
        """Pictures side by side; their titles end just above them."""
        wrapped_titles = []
        # The last row may have fewer pictures than there are columns.
        for title, width in zip(titles, self.column_widths, strict=False):
            wrapped_titles.append(self.page.wrap(title, width))
        space = self.letter // 3
        most_lines = max(len(lines) for lines in wrapped_titles)
        picture_top = self.y + self.line_height * most_lines + space
        x = self.letter
        for column, (lines, picture) in enumerate(zip(wrapped_titles, pictures, strict=True)):
            first_line = picture_top - space - self.line_height * len(lines)
            for number, line in enumerate(lines):
                self.page.texts.append(PageText(x, first_line + self.line_height * number, line))
            self.last_picture = PageImage(x, picture_top, picture, framed=True)
            self.page.images.append(self.last_picture)
            x += self.column_widths[column] + self.letter
        self.y = picture_top + max(len(picture) for picture in pictures) + self.letter

    def add_colour_bar(self, low: float, high: float) -> None:
        """The colours of :func:`heat_map` from left to right, with five of their values."""
        bar = colour_bar(self.content_width, self.letter)
        self.page.images.append(PageImage(self.letter, self.y, bar))
        for position in np.linspace(0, 1, 5):
            text = f"{low + position * (high - low):.2f}"
            # The first value starts where the bar starts, the last one ends where it ends.
            x = self.letter + round(position * (self.content_width - self.page.text_width(text)))
            self.page.texts.append(PageText(x, self.y + self.line_height, text))
        self.y += 2 * self.line_height + self.letter // 2

    def add_legend(self, legend: Legend) -> None:
        """Names with their colours, as many in a line as fit."""
        widest = max((self.page.text_width(name) for name, _ in legend), default=0)
        cell_width = round(widest) + 3 * self.letter
        cells_per_line = max(1, (self.content_width + self.letter) // cell_width)
        for index, (name, colour) in enumerate(legend):
            x = self.letter + index % cells_per_line * cell_width
            y = self.y + index // cells_per_line * self.line_height
            swatch = np.full((self.letter, self.letter, 3), SWATCH_BORDER, np.uint8)
            swatch[1:-1, 1:-1] = np.asarray(colour)
            self.page.images.append(PageImage(x, y, swatch))
            self.page.texts.append(PageText(x + round(1.5 * self.letter), y, name))


def sheet(*args: Any, **options: Any) -> Image.Image:
    """:func:`sheet_page`, drawn."""
    return sheet_page(*args, **options).draw()


def colour_bar(width: int, height: int) -> np.ndarray:
    """The colours of :func:`heat_map` from its smallest value, on the left, to its largest: (H, W, 3) uint8."""
    ramp = np.linspace(0, 255, width).round().astype(np.uint8)
    bar = cv2.applyColorMap(ramp[None].repeat(height, axis=0), cv2.COLORMAP_MAGMA)
    return np.ascontiguousarray(bar[..., ::-1])  # OpenCV's colours are blue, green, red


def short(text: str) -> str:
    """``text`` in one line of at most 40 letters."""
    text = " ".join(text.split())
    if len(text) <= 40:
        return text
    return f"{text[:39].rstrip()}…"


def result_page(
    image: np.ndarray, labels: np.ndarray, names: Sequence[str], palette: Palette, title: str = ""
) -> PageLayout:
    """Photo, overlay and map, with a legend of each class's share of the image, the largest first.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W), integers.
        names, palette: of the classes, in label order.
        title: above all.

    Raises:
        UserError: a palette that does not fit the names.
    """
    colours = class_palette(names, palette)
    height, width = labels.shape
    # Panoramas are put one below the other.
    columns, side = 3, 800
    if width > 1.7 * height:
        columns, side = 1, 1200
    photo = fit(image, side)
    fitted_labels = fit(labels, side)
    panels = [
        (f"image · {width} × {height}", photo),
        ("overlay", overlay(photo, fitted_labels, colours)),
        ("classes", colour_map(fitted_labels, colours)),
    ]
    shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
    present_classes = [label for label in np.argsort(-shares, kind="stable") if shares[label]]
    texts = _names_inside(fitted_labels, names, present_classes)
    legend = [(f"{short(names[label])} · {shares[label]:.1%}", colours[label]) for label in present_classes]
    missing_count = len(names) - len(present_classes)
    note = ""
    if missing_count:
        note = f"share of the image; {missing_count} of {len(names)} classes were not found"
    return sheet_page(panels, columns, legend, note, title=title, texts=texts)


def result_picture(*args: Any, **options: Any) -> Image.Image:
    """:func:`result_page`, drawn."""
    return result_page(*args, **options).draw()


def _names_inside(labels: np.ndarray, names: Sequence[str], present_classes: list[int]) -> list[tuple[int, int, str]]:
    """The names that fit into their class, at the centre of the largest circle within it: x, y, name."""
    texts = []
    for label in present_classes:
        # Beyond the picture there is no class, so that a name keeps away from its edge.
        mask = np.pad(labels == label, 1).astype(np.uint8)
        distance_to_edge = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        name = " ".join(names[label].split())
        # Half of the name's width, in pixels, about.
        if distance_to_edge.max() > 8 * len(name):
            y, x = np.unravel_index(distance_to_edge.argmax(), distance_to_edge.shape)
            texts.append((x - 1, y - 1, name))
    return texts


def grid_page(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], legend: Legend, title: str = "", note: str = ""
) -> PageLayout:
    """Images and label maps in rows, with a legend of the classes that occur.

    Args:
        rows: (H, W, 3) uint8 images and (H, W) integer label maps.
        titles: of the panels, row by row; those that are left out stay blank.
        legend: name and RGB colour of each class, in label order; labels beyond it (such as 255) are "other".
        title: above all.
        note: a line above the legend.
    """
    colours = np.array([colour for _, colour in legend], dtype=np.uint8).reshape(-1, 3)
    panels = [np.asarray(panel) for row in rows for panel in row]
    labels_present: set[int] = set()
    for panel in panels:
        is_label_map = panel.ndim == 2
        if is_label_map:
            labels_present.update(np.unique(panel).tolist())
    present_legend = [legend[label] for label in sorted(labels_present) if 0 <= label < len(legend)]
    if len(present_legend) < len(labels_present):
        present_legend.append(("other", IGNORED))
    side = min(640, 2000 // len(rows[0]))
    pictures = []
    for panel in panels:
        picture = fit(panel, side)
        if picture.ndim == 2:
            picture = colour_map(picture, colours)
        pictures.append(picture)
    titled_pictures = list(zip_longest(titles, pictures, fillvalue=""))
    return sheet_page(titled_pictures, len(rows[0]), present_legend, note, title=title)


def grid_picture(*args: Any, **options: Any) -> Image.Image:
    """:func:`grid_page`, drawn."""
    return grid_page(*args, **options).draw()

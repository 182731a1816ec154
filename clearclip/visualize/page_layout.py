"""A page of texts and pictures: placed once, then drawn as pixels (PNG, JPEG) or as vectors (SVG, PDF)."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clearclip.visualize.fonts import font_file

#: Pixels per inch of vector pages: a page of 2,400 pixels is 8 inches wide.
VECTOR_DPI = 300
#: RGB colour of the line around pictures, without which a white one would have no edge.
FRAME_COLOUR = (150, 150, 150)

Colour = Sequence[int]


@dataclass
class PageText:
    """A line of text: ``x``, ``y`` are its upper left corner or, for an ``outlined`` one, its centre."""

    x: float
    y: float
    text: str
    outlined: bool = False


@dataclass
class PageImage:
    """A picture, (H, W, 3) uint8, with its upper left corner, and whether it has a frame."""

    x: int
    y: int
    pixels: np.ndarray
    framed: bool = False


@dataclass
class PageLayout:
    """Texts and pictures by their places in pixels; nothing is clipped, since the page grows with what is placed.

    Attributes:
        letter: size of the letters in pixels.
        texts, images: what has been placed.
    """

    letter: int
    texts: list[PageText] = field(default_factory=list)
    images: list[PageImage] = field(default_factory=list)

    def font(self, text: str) -> ImageFont.FreeTypeFont:
        """The font that draws ``text``."""
        return ImageFont.truetype(font_file(text), self.letter)

    @property
    def ascent(self) -> int:
        """From the upper edge of a line down to its baseline, on which the letters of all fonts stand."""
        ascent, _ = self.font("").getmetrics()
        return ascent

    def text_width(self, text: str) -> float:
        """Width of a line of text in pixels."""
        return self.font(text).getlength(text)

    def wrap(self, text: str, width: int) -> list[str]:
        """``text`` in lines of at most ``width`` pixels."""
        # textwrap counts letters; their mean width in this very text is taken for each.
        letters_per_pixel = len(text) / max(1, self.text_width(text))
        return textwrap.wrap(text, max(1, int(width * letters_per_pixel)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the page: what is placed and a margin of one letter."""
        rights = [image.x + image.pixels.shape[1] for image in self.images]
        bottoms = [image.y + image.pixels.shape[0] for image in self.images]
        for line in self.texts:
            if not line.outlined:  # those lie upon a picture
                rights.append(round(line.x + self.text_width(line.text)))
                bottoms.append(round(line.y + self.letter))
        return max(rights) + self.letter, max(bottoms) + self.letter

    def draw(self) -> Image.Image:
        """The page as pixels; each pixel of a picture is one of the page."""
        page = Image.new("RGB", self.size, "white")
        canvas = ImageDraw.Draw(page)
        for image in self.images:
            page.paste(Image.fromarray(image.pixels), (image.x, image.y))
            if image.framed:
                # Just outside of the picture, of which no pixel is hidden.
                height, width = image.pixels.shape[:2]
                corners = (image.x - 1, image.y - 1, image.x + width, image.y + height)
                canvas.rectangle(corners, outline=FRAME_COLOUR)
        for line in self.texts:
            font = self.font(line.text)
            if line.outlined:
                style = dict(fill="white", anchor="mm", stroke_width=2, stroke_fill="black")
                canvas.text((line.x, line.y), line.text, font=font, **style)
            else:
                canvas.text((line.x, line.y + self.ascent), line.text, "black", font, anchor="ls")
        return page

    def vector_bytes(self, format_name: str) -> bytes:
        """The page as "svg" or "pdf": letters are shapes or embedded fonts, pictures keep their pixels."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        width, height = self.size
        # A user's own style changes nothing. No dates and random names: the same page has the same bytes.
        # Journals want TrueType (42); the fonts of other scripts, which are none, are embedded as shapes (3).
        is_default = all(font_file(line.text) == font_file("") for line in self.texts)
        font_type = 42 if is_default else 3
        settings = {
            "pdf.fonttype": font_type,
            "svg.fonttype": "path",
            "svg.hashsalt": "clearclip",
            "savefig.bbox": None,
        }
        with rc_context(settings):
            figure = Figure(figsize=(width / VECTOR_DPI, height / VECTOR_DPI), dpi=VECTOR_DPI, facecolor="white")
            for image in self.images:
                self._add_vector_image(figure, image, width, height)
            for line in self.texts:
                self._add_vector_text(figure, line, width, height)
            date = {"svg": "Date", "pdf": "CreationDate"}[format_name]
            buffer = io.BytesIO()
            figure.savefig(buffer, format=format_name, dpi=VECTOR_DPI, metadata={date: None})
        return buffer.getvalue()

    def _add_vector_image(self, figure: Any, image: PageImage, page_width: int, page_height: int) -> None:
        height, width = image.pixels.shape[:2]
        bottom = page_height - image.y - height
        box = (image.x / page_width, bottom / page_height, width / page_width, height / page_height)
        axes = figure.add_axes(box)
        axes.imshow(image.pixels, aspect="auto", interpolation="none")
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set(visible=image.framed, color=np.divide(FRAME_COLOUR, 255), linewidth=72 / VECTOR_DPI)

    def _add_vector_text(self, figure: Any, line: PageText, page_width: int, page_height: int) -> None:
        from matplotlib.font_manager import FontProperties
        from matplotlib.patheffects import withStroke

        style = {"fontsize": self.letter * 72 / VECTOR_DPI, "font": FontProperties(fname=font_file(line.text))}
        # "$x$" in a class name is no formula.
        style |= {"parse_math": False, "color": "black"}
        if line.outlined:
            stroke = withStroke(linewidth=4 * 72 / VECTOR_DPI, foreground="black")
            style |= {"ha": "center", "va": "center", "color": "white", "path_effects": [stroke]}
            baseline = line.y
        else:
            style |= {"va": "baseline"}
            baseline = line.y + self.ascent
        figure.text(line.x / page_width, 1 - baseline / page_height, line.text, **style)

"""Pictures from plain arrays: label maps over photographs, comparisons, similarity maps, what an evaluation found."""

from clearclip.visualize.colours import IGNORED, Palette, class_palette, colour_map, fit, heat_map, overlay
from clearclip.visualize.page_layout import PageLayout
from clearclip.visualize.picture_files import palette_image, save_image
from clearclip.visualize.sheets import (
    colour_bar,
    grid_page,
    grid_picture,
    result_page,
    result_picture,
    sheet,
    sheet_page,
    short,
)

__all__ = [
    "IGNORED",
    "PageLayout",
    "Palette",
    "class_palette",
    "colour_bar",
    "colour_map",
    "fit",
    "grid_page",
    "grid_picture",
    "heat_map",
    "overlay",
    "palette_image",
    "result_page",
    "result_picture",
    "save_image",
    "sheet",
    "sheet_page",
    "short",
]

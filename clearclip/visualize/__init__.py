"""Pictures from plain arrays: label maps over photographs, comparisons, similarity maps, what an evaluation found."""

from clearclip.visualize.colours import IGNORED, Palette, class_palette, colour_map, fit, heat_map, overlay
from clearclip.visualize.sheets import grid_picture, result_picture, save_image, sheet, short

__all__ = [
    "IGNORED",
    "Palette",
    "class_palette",
    "colour_map",
    "fit",
    "grid_picture",
    "heat_map",
    "overlay",
    "result_picture",
    "save_image",
    "sheet",
    "short",
]

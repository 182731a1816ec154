"""Pictures from plain arrays: label maps over photographs, comparisons, similarity maps, what an evaluation found."""

from clearclip.visualize.colours import Palette, class_palette
from clearclip.visualize.files import save_image
from clearclip.visualize.paint import fit, heat_map, overlay
from clearclip.visualize.sheets import grid_picture, result_picture, sheet

__all__ = [
    "Palette",
    "class_palette",
    "fit",
    "grid_picture",
    "heat_map",
    "overlay",
    "result_picture",
    "save_image",
    "sheet",
]

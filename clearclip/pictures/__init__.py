"""Pictures from plain arrays: label maps over photographs, comparisons, similarity maps, what an evaluation found."""

from clearclip.pictures.colours import Palette, class_palette
from clearclip.pictures.files import save_image
from clearclip.pictures.paint import fit, heat_map, overlay
from clearclip.pictures.sheets import evaluation_picture, grid_picture, result_picture, sheet

__all__ = [
    "Palette",
    "class_palette",
    "evaluation_picture",
    "fit",
    "grid_picture",
    "heat_map",
    "overlay",
    "result_picture",
    "save_image",
    "sheet",
]

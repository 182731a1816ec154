"""Pictures: label maps over photographs, legends, comparisons, similarity maps, grids for reports."""

from clearclip.pictures.colours import class_palette, palette
from clearclip.pictures.files import png_bytes, save_image, write_bytes
from clearclip.pictures.grids import evaluation_picture, grid_picture
from clearclip.pictures.paint import colour_map, heat_map, overlay
from clearclip.pictures.results import (
    compare_picture,
    heat_maps,
    heat_picture,
    overlay_picture,
    result_picture,
    share_text,
)

__all__ = [
    "class_palette",
    "colour_map",
    "compare_picture",
    "evaluation_picture",
    "grid_picture",
    "heat_map",
    "heat_maps",
    "heat_picture",
    "overlay",
    "overlay_picture",
    "palette",
    "png_bytes",
    "result_picture",
    "save_image",
    "share_text",
    "write_bytes",
]

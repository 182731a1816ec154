"""The options of ``demo.py`` that say how a raster is read, and what is written for a map."""

from __future__ import annotations

from clearclip.commands.command_line import CommandParser


def add_map_options(parser: CommandParser) -> None:
    """Add ``--bands``, ``--levels`` and ``--polygons``."""
    add = parser.add_argument_group("rasters and maps (pip install 'clearclip[geo]')").add_argument
    add("--bands", nargs="+", type=int, metavar="N", help="which are red, green and blue, counted from 1: 3 2 1")
    levels = "the levels that become black and white: 0 4095, or percentiles (default: what the file says)"
    add("--levels", nargs="+", metavar="X", help=levels)
    add("--polygons", action="store_true", help="also the areas of a map, or of each image, as GeoJSON")

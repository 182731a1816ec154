"""Where a raster lies on the earth, to be handed on to what is made of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearclip.rasters.headers import Header, read_header
from clearclip.rasters.levels import PictureWarning
from clearclip.rasters.reader import DRIVERS, open_raster
from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path


@dataclass(frozen=True)
class Georeference:
    """Coordinates of a raster's pixels.

    Attributes:
        crs: the coordinate reference system as well-known text, or None.
        transform: of columns and rows to coordinates: the six numbers (a, b, c, d, e, f) of x = a·column + b·row + c,
            y = d·column + e·row + f.
        ground_points: rasterio's ground control points, where the raster has these in place of a transform.
    """

    crs: str | None
    transform: tuple[float, ...]
    ground_points: Sequence[Any] = ()

    @classmethod
    def of(cls, dataset: Any) -> Georeference:
        """The coordinates of a raster that rasterio has opened."""
        points, points_crs = dataset.gcps
        # A raster with ground control points has its reference system there, and none of its own.
        crs = dataset.crs or points_crs
        well_known_text = crs.to_wkt() if crs else None
        # An affine matrix has a third row, which is always 0, 0, 1.
        transform = tuple(dataset.transform)[:6]
        return cls(well_known_text, transform, tuple(points))


def raster_header(path: Path) -> Header | None:
    """The header of a file that may be a raster, TIFF or JPEG 2000; None for others, and for those that are damaged."""
    try:
        with open(path, "rb") as file:
            header = read_header(file)
    except Exception:  # whatever damaged tags bring about; who decodes it says what is wrong
        return None
    if header.format not in DRIVERS:
        return None
    return header


def read_georeference(path: str | Path) -> Georeference | None:
    """The coordinates of an image file; None where it has none.

    Raises:
        UserError: rasterio, which reads them, is missing.
    """
    header = raster_header(Path(path))
    if header is None or not header.georeferenced:
        return None
    with open_raster(Path(path), header) as dataset:
        return Georeference.of(dataset)


def georeference_of(image: Any) -> Georeference | None:
    """:func:`read_georeference` of whatever may be segmented; a warning where rasterio is missing."""
    if not isinstance(image, str | os.PathLike):
        return None
    try:
        return read_georeference(user_path(image))
    except UserError as error:
        warnings.warn(f"coordinates are left out: {error}", PictureWarning, stacklevel=2)
        return None


def check_not_turned(header: Header, path: Path) -> None:
    """A map's coordinates belong to the picture as it is stored.

    Raises:
        UserError: its orientation tag wants it to be turned.
    """
    if header.orientation != 1:
        raise UserError(
            f"{path} is a map whose orientation tag ({header.orientation}) turns it; remove the tag, for example with "
            "gdal_translate"
        )

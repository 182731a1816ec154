"""The areas of a label map as polygons in GeoJSON."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from clearclip.rasters.reader import import_rasterio
from clearclip.utils.files import temporary_for_user, user_path

#: GeoJSON's coordinate reference system: longitude and latitude, WGS 84.
_GEOJSON_CRS = "EPSG:4326"
#: Of degrees: about a tenth of a millimetre.
_DECIMALS = 9


def write_polygons(label_map: str | Path, path: str | Path, names: Sequence[str], colours: np.ndarray) -> int:
    """Write the areas of a label map as polygons, whole or not at all.

    GeoJSON has longitude and latitude (WGS 84); where the map has no coordinate reference system, columns and rows.
    Each feature has ``class``, ``label`` and ``fill``, a colour.

    Args:
        label_map: a GeoTIFF of :func:`clearclip.rasters.geotiff.write_label_map`.
        path: ends in .geojson.
        names, colours: of the classes.

    Returns:
        How many polygons there are.

    Raises:
        UserError: rasterio is missing, or the place cannot be written.
    """
    rasterio = import_rasterio("polygons")
    path = user_path(path)
    count = 0
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        dataset = stack.enter_context(rasterio.open(label_map))
        temporary = stack.enter_context(temporary_for_user(path))
        file = stack.enter_context(temporary.open("w", encoding="utf-8"))
        # Feature by feature, since all areas of a large map would not fit into memory.
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for geometry, label in _areas(dataset):
            properties = {"class": names[label], "label": label, "fill": f"#{bytes(colours[label]).hex()}"}
            feature = {"type": "Feature", "properties": properties, "geometry": geometry}
            file.write(separator + json.dumps(feature, ensure_ascii=False))
            separator = ",\n"
            count += 1
        file.write("\n]}\n")
    return count


def _areas(dataset: Any) -> Iterator[tuple[dict[str, Any], int]]:
    """The geometry of each connected area of a label, and the label; what has no data is left out."""
    import rasterio
    from rasterio.features import shapes
    from rasterio.warp import transform_geom

    # A band and no array: GDAL reads it as it goes.
    band = rasterio.band(dataset, 1)
    for geometry, value in shapes(band, transform=dataset.transform):
        if value == dataset.nodata:
            continue
        if dataset.crs is not None:
            geometry = transform_geom(dataset.crs, _GEOJSON_CRS, geometry, precision=_DECIMALS)
        yield geometry, int(value)


def count_polygons(path: Path) -> int:
    """How many polygons a file of :func:`write_polygons` has: each stands in a line of its own."""
    with path.open(encoding="utf-8") as file:
        return sum(line.startswith('{"type": "Feature"') for line in file)

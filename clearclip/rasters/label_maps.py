"""Label maps as GeoTIFF, with coordinates, palette, names and nodata; and their areas as polygons in GeoJSON."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from clearclip.rasters.georeference import Georeference
from clearclip.rasters.reader import import_rasterio
from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path, write_bytes

#: Side of the tiles of a GeoTIFF, in pixels.
TILE = 512


def label_type(classes: int) -> tuple[type[np.unsignedinteger], int]:
    """The type of a label map's values, and the value of pixels without data: the largest."""
    return (np.uint8, 255) if classes <= 255 else (np.uint16, 65535)


def write_label_map(
    path: str | Path,
    strips: Iterable[np.ndarray],
    size: tuple[int, int],
    names: Sequence[str],
    colours: np.ndarray,
    georeference: Georeference | None = None,
) -> Path:
    """Write a GeoTIFF, whole or not at all: compressed, in tiles, with a palette, class names and nodata.

    The names are tags of the band (``class_0``, …), and in a file ``….aux.xml`` beside it, where GDAL and QGIS look.

    Args:
        path: ends in .tif or .tiff; folders are made.
        strips: rows of labels from the top, each (rows, width), as many as there are, of :func:`label_type`.
        size: height and width.
        names, colours: of the classes, in label order; (classes, 3) uint8.
        georeference: of the raster that was segmented.

    Raises:
        UserError: rasterio is missing, or the place cannot be written.
    """
    path = user_path(path)
    with _replaced(path) as temporary:
        with _label_dataset(temporary, size, names, colours, georeference) as dataset:
            _write_strips(dataset, strips, size)
        write_bytes(f"{path}.aux.xml", _category_names(names).encode())
    return path


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A temporary file in the folder of ``path``, which takes its place when all went well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:50]}-", suffix=path.suffix)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _label_dataset(
    path: Path, size: tuple[int, int], names: Sequence[str], colours: np.ndarray, georeference: Georeference | None
) -> Iterator[Any]:
    rasterio = import_rasterio(f"{path.suffix} with coordinates")
    dtype, nodata = label_type(len(names))
    options: dict[str, Any] = dict(driver="GTiff", count=1, height=size[0], width=size[1], dtype=dtype, nodata=nodata)
    options |= dict(compress="deflate", predictor=1, photometric="palette", BIGTIFF="IF_SAFER")
    if min(size) >= TILE:
        options |= dict(tiled=True, blockxsize=TILE, blockysize=TILE)
    if georeference is not None:
        options["crs"] = georeference.crs
        if georeference.ground_points:
            options["gcps"] = list(georeference.ground_points)
        else:
            options["transform"] = rasterio.Affine(*georeference.transform)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=128 << 20))
        dataset = stack.enter_context(rasterio.open(path, "w", **options))
        palette = {label: (*map(int, colour), 255) for label, colour in enumerate(colours)}
        palette[nodata] = (0, 0, 0, 0)
        dataset.write_colormap(1, palette)
        dataset.update_tags(1, **{f"class_{label}": name for label, name in enumerate(names)})
        yield dataset


def _write_strips(dataset: Any, strips: Iterable[np.ndarray], size: tuple[int, int]) -> None:
    """Whole rows of tiles at a time: a tile that is written twice is compressed twice."""
    from rasterio.windows import Window

    top = 0
    waiting = np.empty((0, size[1]), dataset.dtypes[0])
    for strip in strips:
        waiting = np.concatenate([waiting, strip.astype(dataset.dtypes[0])])
        last = top + len(waiting) == size[0]
        rows = len(waiting) if last else len(waiting) // TILE * TILE
        if rows:
            dataset.write(waiting[:rows], 1, window=Window(0, top, size[1], rows))
            top += rows
            waiting = waiting[rows:]


def _category_names(names: Sequence[str]) -> str:
    """GDAL's own file of what the format cannot hold."""
    categories = "".join(f"<Category>{escape(name)}</Category>" for name in names)
    band = f'<PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames></PAMRasterBand>'
    return f"<PAMDataset>{band}</PAMDataset>\n"


def write_polygons(label_map: str | Path, path: str | Path, names: Sequence[str], colours: np.ndarray) -> int:
    """Write the areas of a label map as polygons, whole or not at all.

    GeoJSON has longitude and latitude (WGS 84); where the map has no coordinate reference system, columns and rows.
    Each feature has ``class``, ``label`` and ``fill``, a colour.

    Args:
        label_map: a GeoTIFF of :func:`write_label_map`.
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
        temporary = stack.enter_context(_replaced(path))
        file = stack.enter_context(temporary.open("w", encoding="utf-8"))
        file.write('{"type": "FeatureCollection", "features": [')
        for geometry, label in _areas(dataset):
            properties = {"class": names[label], "label": label, "fill": f"#{bytes(colours[label]).hex()}"}
            feature = {"type": "Feature", "properties": properties, "geometry": geometry}
            file.write(("," if count else "") + "\n" + json.dumps(feature, ensure_ascii=False))
            count += 1
        file.write("\n]}\n")
    return count


def _areas(dataset: Any) -> Iterator[tuple[dict[str, Any], int]]:
    """The geometry of each connected area of a label, and the label; what has no data is left out."""
    import rasterio
    from rasterio.features import shapes
    from rasterio.warp import transform_geom

    band = rasterio.band(dataset, 1)
    for geometry, value in shapes(band, transform=dataset.transform):
        if value == dataset.nodata:
            continue
        if dataset.crs is not None:
            geometry = transform_geom(dataset.crs, "EPSG:4326", geometry, precision=9)
        yield geometry, int(value)

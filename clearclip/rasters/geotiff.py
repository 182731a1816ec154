"""Label maps as GeoTIFF, with coordinates, palette, class names and nodata."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from clearclip.rasters.georeference import Georeference
from clearclip.rasters.headers import file_format
from clearclip.rasters.reader import import_rasterio
from clearclip.rasters.tiff_tags import tiff_tags
from clearclip.utils.files import temporary_for_user, user_path, write_bytes

#: Side of the tiles of a GeoTIFF, in pixels.
TILE = 512
#: A tag of every label map of this package; its value says what the labels depend on, where that is known.
DIGEST_TAG = "CLEARCLIP_LABELS_OF"
#: The TIFF tag in which GDAL keeps tags of its own, as XML.
_GDAL_METADATA = 42112


def label_type(classes: int) -> tuple[type[np.unsignedinteger], int]:
    """The type of a label map's values, and the value of pixels without data: the largest."""
    if classes <= 255:
        return np.uint8, 255
    return np.uint16, 65535


def write_label_map(
    path: str | Path,
    strips: Iterable[np.ndarray],
    size: tuple[int, int],
    names: Sequence[str],
    colours: np.ndarray,
    georeference: Georeference | None = None,
    digest: str = "",
) -> Path:
    """Write a GeoTIFF, whole or not at all: compressed, in tiles, with a palette, class names and nodata.

    The names are tags of the band (``class_0``, …), and in a file ``….aux.xml`` beside it, where GDAL and QGIS look.

    Args:
        path: ends in .tif or .tiff; folders are made.
        strips: rows of labels from the top, each (rows, width), as many as there are, of :func:`label_type`.
        size: height and width.
        names, colours: of the classes, in label order; (classes, 3) uint8.
        georeference: of the raster that was segmented.
        digest: of all that the labels depend on; kept in the file.

    Raises:
        UserError: rasterio is missing, or the place cannot be written.
    """
    path = user_path(path)
    with temporary_for_user(path) as temporary:
        with _label_dataset(temporary, size, names, colours, georeference) as dataset:
            dataset.update_tags(**{DIGEST_TAG: digest})
            _write_strips(dataset, strips, size)
        write_bytes(f"{path}.aux.xml", _category_names(names).encode())
    return path


@contextmanager
def _label_dataset(
    path: Path, size: tuple[int, int], names: Sequence[str], colours: np.ndarray, georeference: Georeference | None
) -> Iterator[Any]:
    """A new GeoTIFF, open for writing its labels, with all that is said about them."""
    rasterio = import_rasterio(f"{path.suffix} with coordinates")
    dtype, nodata = label_type(len(names))
    options = _creation_options(size) | _coordinate_options(georeference)
    with ExitStack() as stack:
        # A picture without coordinates becomes a map without; nobody needs to be warned of that.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=128 << 20))
        dataset = stack.enter_context(rasterio.open(path, "w", dtype=dtype, nodata=nodata, **options))
        palette = {label: (*map(int, colour), 255) for label, colour in enumerate(colours)}
        palette[nodata] = (0, 0, 0, 0)
        dataset.write_colormap(1, palette)
        dataset.update_tags(1, **{f"class_{label}": name for label, name in enumerate(names)})
        yield dataset


def _creation_options(size: tuple[int, int]) -> dict[str, Any]:
    """GDAL's options for a label map of such a height and width."""
    height, width = size
    # IF_SAFER: offsets of eight bytes where the file might grow beyond 4 GB, which is not known before.
    options: dict[str, Any] = dict(driver="GTiff", count=1, height=height, width=width, BIGTIFF="IF_SAFER")
    options |= dict(compress="deflate", predictor=1, photometric="palette")
    if min(size) >= TILE:
        options |= dict(tiled=True, blockxsize=TILE, blockysize=TILE)
    return options


def _coordinate_options(georeference: Georeference | None) -> dict[str, Any]:
    """rasterio's options for coordinates; none for a picture without."""
    if georeference is None:
        return {}
    if georeference.ground_points:
        return {"crs": georeference.crs, "gcps": list(georeference.ground_points)}
    from rasterio import Affine

    return {"crs": georeference.crs, "transform": Affine(*georeference.transform)}


def _write_strips(dataset: Any, strips: Iterable[np.ndarray], size: tuple[int, int]) -> None:
    """Whole rows of tiles at a time: a tile that is written twice is compressed twice."""
    from rasterio.windows import Window

    top = 0
    # Rows that do not yet fill tiles.
    waiting = np.empty((0, size[1]), dataset.dtypes[0])
    for strip in strips:
        waiting = np.concatenate([waiting, strip.astype(dataset.dtypes[0])])
        rows = len(waiting) // TILE * TILE
        is_last_strip = top + len(waiting) == size[0]
        if is_last_strip:
            rows = len(waiting)
        if rows:
            dataset.write(waiting[:rows], 1, window=Window(0, top, size[1], rows))
            top += rows
            waiting = waiting[rows:]


def _category_names(names: Sequence[str]) -> str:
    """GDAL's own file of what the format cannot hold."""
    categories = "".join(f"<Category>{escape(name)}</Category>" for name in names)
    band = f'<PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames></PAMRasterBand>'
    return f"<PAMDataset>{band}</PAMDataset>\n"


def is_label_map(path: Path) -> bool:
    """Whether a file was written by :func:`write_label_map`; without rasterio."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            if file_format(head) != "TIFF":
                return False
            return DIGEST_TAG in str(tiff_tags(file, head).get(_GDAL_METADATA, ""))
    except Exception:  # whatever damaged tags bring about
        return False


@dataclass(frozen=True)
class ExistingLabelMap:
    """What a label map says that was written before.

    Attributes:
        digest: as it was given to :func:`write_label_map`.
        class_pixels: how many pixels each class has, (classes,) int64.
    """

    digest: str
    class_pixels: np.ndarray


def read_label_map(path: Path, classes: int) -> ExistingLabelMap | None:
    """Read a file of :func:`write_label_map` strip by strip; None where there is none, or none that is whole."""
    if not path.is_file():
        return None
    rasterio = import_rasterio(f"{path.suffix} with coordinates")
    class_pixels = np.zeros(classes, np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(path, driver="GTiff") as dataset:
                for top in range(0, dataset.height, TILE):
                    window = rasterio.windows.Window(0, top, dataset.width, min(TILE, dataset.height - top))
                    labels = dataset.read(1, window=window)
                    class_pixels += np.bincount(labels.ravel(), minlength=classes)[:classes]
                return ExistingLabelMap(dataset.tags().get(DIGEST_TAG, ""), class_pixels)
        # Whatever else may be at this place: another raster, whose levels are no labels, or no raster.
        except (rasterio.errors.RasterioError, TypeError, ValueError):
            return None

"""Rasters through rasterio: which bands are red, green and blue, where there is no data, and their levels as 0..255."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from clearclip.rasters.headers import Header
from clearclip.rasters.levels import Levels, percentile_levels, to_bytes
from clearclip.rasters.tiff_tags import OTHER_COLOUR_SPACES, WHITE_IS_ZERO
from clearclip.utils.errors import UserError

#: The formats that GDAL may open, by the name of Pillow. Others may read further files, or ask a server.
DRIVERS = {"TIFF": "GTiff", "JPEG2000": "JP2OpenJPEG"}
BANDS_REMEDY = "say which are red, green and blue, counted from 1: --bands 3 2 1, or bands=(3, 2, 1)"
#: Nothing beside the file is read, and little of it is kept in memory.
_GDAL_OPTIONS = {"GDAL_CACHEMAX": 128 << 20, "GDAL_PAM_ENABLED": "NO", "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
#: Longer side of the overview from which levels of a large raster are taken.
_OVERVIEW = 1024


def import_rasterio(purpose: str) -> ModuleType:
    """rasterio, with its errors and warnings; it is optional.

    Raises:
        UserError: it is not installed; ``purpose`` says for what it is needed.
    """
    # The modules are named, since rasterio alone does not import them.
    try:
        import rasterio
        import rasterio.features
        import rasterio.warp
        import rasterio.windows
    except ImportError as error:
        raise UserError(f"{purpose} needs rasterio ({error}); install it: pip install 'clearclip[geo]'") from error
    return rasterio


def check_bands(bands: Sequence[int] | int | None) -> tuple[int, int, int] | None:
    """Bands as a user gave them: three numbers, or one for grey, counted from 1.

    Raises:
        UserError: other numbers.
    """
    if bands is None:
        return None
    if isinstance(bands, int):
        bands = [bands]
    numbers = list(bands)
    are_counted = all(isinstance(number, int) and number >= 1 for number in numbers)
    if not are_counted or len(numbers) not in (1, 3):
        raise UserError(f"bands {bands!r}: give the numbers of red, green and blue, counted from 1, such as 3 2 1")
    red, green, blue = numbers * (3 // len(numbers))
    return red, green, blue


@contextmanager
def open_raster(path: str | Path, header: Header) -> Iterator[Any]:
    """A raster file, opened by the one GDAL driver of its format.

    Raises:
        UserError: rasterio is missing, or the file is damaged.
    """
    rasterio = import_rasterio(f"{path} ({header.reason or 'a map'})")
    # One driver: GDAL has some that read other files which a file names, or ask servers.
    with rasterio.Env(**_GDAL_OPTIONS), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(path, driver=DRIVERS[header.format]) as dataset:
                yield dataset
        except rasterio.errors.RasterioError as error:
            raise UserError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True)
class ColourBands:
    """What of a raster makes a colour picture.

    Attributes:
        indexes: of red, green and blue, counted from 1.
        palette: (colours, 3) uint8, where the one band holds its indexes.
        depth: bits of the levels, where they are fewer than those of the type.
        inverted: 0 is white.
        assumed: no tag names the bands; their order is taken as red, green, blue.
    """

    indexes: tuple[int, int, int]
    palette: np.ndarray | None = None
    depth: int | None = None
    inverted: bool = False
    assumed: bool = False

    @classmethod
    def of(cls, dataset: Any, header: Header, name: str, bands: tuple[int, int, int] | None = None) -> ColourBands:
        """The bands that the user names, or the file's tags do, or that are the only ones possible.

        Raises:
            UserError: the raster lacks a band that was named, or nothing says which bands are colours.
        """
        if header.photometric in OTHER_COLOUR_SPACES:
            raise UserError(f"{name} has colours in L*a*b* or LogLuv; convert it to red, green and blue")
        depth = header.depth or _stated_depth(dataset)
        inverted = header.photometric == WHITE_IS_ZERO
        # What the user says comes before what the file says: tags of satellites' bands are often wrong.
        if bands is not None:
            if max(bands) > dataset.count:
                raise UserError(f"{name} has {dataset.count} band(s), so there is no band {max(bands)}")
            return cls(bands, depth=depth, inverted=inverted)
        interpretation = [colour.name for colour in dataset.colorinterp]
        if interpretation[0] == "palette":
            return cls((1, 1, 1), _palette(dataset))
        if {"red", "green", "blue"} <= set(interpretation):
            red, green, blue = (interpretation.index(colour) + 1 for colour in ("red", "green", "blue"))
            return cls((red, green, blue), depth=depth)
        if dataset.count == 1 or (dataset.count == 2 and interpretation[1] == "alpha"):
            return cls((1, 1, 1), depth=depth, inverted=inverted)
        # The first band of HSL, CMY and YCbCr, which would be taken for red.
        is_other_space = bool({"hue", "cyan", "Y"} & set(interpretation))
        if dataset.count == 3 and not is_other_space:
            return cls((1, 2, 3), depth=depth, assumed=True)
        raise UserError(f"{name} has {dataset.count} bands, of which no tag says which are colours; {BANDS_REMEDY}")


def _stated_depth(dataset: Any) -> int | None:
    """GDAL's NBITS of the first band."""
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "")
    if not bits.isdecimal() or int(bits) in (8, 16, 32, 64):
        return None
    return int(bits)


def _palette(dataset: Any) -> np.ndarray:
    """The palette of the first band, (largest index + 1, 3) uint8 RGB; indexes without a colour are black."""
    colours = dataset.colormap(1)
    palette = np.zeros((max(colours) + 1, 3), np.uint8)
    for index, colour in colours.items():
        palette[index] = colour[:3]
    return palette


class RasterReader:
    """Windows of a raster as pictures.

    Args:
        dataset: of :func:`open_raster`.
        header: of the file.
        name: of the file, for what is said about it.
        bands: which are red, green and blue; None asks the file's tags.
        levels: which levels are black and white; percentiles are those of an overview of the whole raster.

    Attributes:
        remarks: what a user should know about how it is read.

    Raises:
        UserError: nothing says which bands are colours.
    """

    def __init__(
        self,
        dataset: Any,
        header: Header,
        name: str,
        bands: tuple[int, int, int] | None = None,
        levels: Levels | None = None,
    ):
        self.dataset = dataset
        self.name = name
        self.colours = ColourBands.of(dataset, header, name, bands)
        self.levels = levels
        self.remarks: list[str] = []
        if self.colours.assumed:
            self.remarks.append(f"{name}: no tag names its 3 bands, which are taken as red, green and blue")
        # Of the whole raster, once: percentiles of each window would make a patchwork of it.
        if isinstance(levels, str):
            values, valid = self.overview()
            self.levels = percentile_levels(values, valid)
            self.remarks.append(
                f"{name}: levels {self.levels[0]:g} to {self.levels[1]:g} become 0 to 255 (percentiles)"
            )

    def overview(self) -> tuple[np.ndarray, np.ndarray]:
        """Levels (h, w, 3) and valid pixels (h, w) of the whole raster, at most 1024 pixels on its longer side."""
        height, width = self.dataset.shape
        step = max(1, max(height, width) / _OVERVIEW)
        shape = (max(1, round(height / step)), max(1, round(width / step)))
        indexes = self._band_indexes()
        values = np.moveaxis(self.dataset.read(indexes, out_shape=(len(indexes), *shape)), 0, -1)
        return values, self.dataset.dataset_mask(out_shape=shape) > 0

    def read(self, window: Any = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a window, rows and columns as slices, or of the whole raster."""
        indexes = self._band_indexes()
        values = np.moveaxis(self.dataset.read(indexes, window=window), 0, -1)
        return self._picture(values)

    def _band_indexes(self) -> list[int]:
        """The bands to read: three, or the one of grey, which is not read three times."""
        return list(dict.fromkeys(self.colours.indexes))

    def _picture(self, values: np.ndarray) -> np.ndarray:
        """Levels (H, W, 1 or 3) of the colour bands as (H, W, 3) uint8 RGB."""
        if self.colours.palette is not None:
            # A damaged file may have an index beyond its palette.
            largest_index = len(self.colours.palette) - 1
            return self.colours.palette[np.minimum(values[..., 0], largest_index)]
        values = to_bytes(values, self.levels, self.colours.depth, self.name)
        if self.colours.inverted:
            values = 255 - values
        return np.array(np.broadcast_to(values, (*values.shape[:2], 3)), order="C")

    def valid(self, window: Any = None) -> np.ndarray:
        """(H, W) bool: where the raster has data, by its nodata value, mask or alpha."""
        return self.dataset.dataset_mask(window=window) > 0

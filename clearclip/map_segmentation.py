"""Rasters of any size: read and segmented block by block, and written as a map of labels with their coordinates."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clearclip.model import Classes, ClearCLIP
from clearclip.rasters.finished_blocks import Block, FinishedBlocks, unfinished_map
from clearclip.rasters.geojson import count_polygons, write_polygons
from clearclip.rasters.georeference import Georeference, check_not_turned, raster_header
from clearclip.rasters.geotiff import label_type, read_label_map, write_label_map
from clearclip.rasters.levels import Levels, check_levels
from clearclip.rasters.reader import RasterReader, check_bands, open_raster
from clearclip.text import ClassWords, TextFeatures
from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path
from clearclip.visualize import class_palette

#: Side of a block in pixels, about: what is in memory at a time are a block and half a window around it.
BLOCK = 2688


@dataclass(frozen=True)
class MapSegmentation:
    """What :func:`segment_map` has written.

    Attributes:
        path: of the GeoTIFF of labels.
        polygons_path: of the GeoJSON, where it was asked for.
        polygon_count: how many polygons it has.
        classes: names, in label order.
        class_pixels: how many pixels each class has, (classes,) int64.
        size: height and width of the map, in pixels.
        remarks: what a user should know about how the raster was read.
        was_there: an earlier call had written the very same labels, which are left as they are.
    """

    path: Path
    polygons_path: Path | None
    polygon_count: int
    classes: list[str]
    class_pixels: np.ndarray
    size: tuple[int, int]
    remarks: tuple[str, ...] = ()
    was_there: bool = False

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels with data that each class covers, 0 to 1, in label order."""
        # A raster may have no data anywhere.
        total = max(1, int(self.class_pixels.sum()))
        return {name: int(pixels) / total for name, pixels in zip(self.classes, self.class_pixels, strict=True)}


def segment_map(
    model: ClearCLIP,
    raster: str | os.PathLike[str],
    classes: Classes,
    out: str | os.PathLike[str],
    *,
    bands: Sequence[int] | None = None,
    levels: Levels | Sequence[float] | None = None,
    polygons: bool = False,
    colours: np.ndarray | None = None,
    block: int = BLOCK,
    progress: bool = False,
    skip_existing: bool = False,
) -> MapSegmentation:
    """Segment a raster of any size, TIFF or JPEG 2000, in bounded memory.

        segment_map(model, "ortho.tif", ["road", "roof", "tree | forest"], "labels.tif", polygons=True)

    Windows lie on one grid over the whole raster, every ``slide_stride`` pixels, at its own resolution: labels are
    those that the raster would have if it were segmented at once without being resized. What is finished is kept in
    ``out.part``; the same call goes on from there.

    Args:
        model: whose method, windows and threshold are used.
        raster: the file.
        classes: names in label order; ``|`` separates the words of one class.
        out: the GeoTIFF of labels: the raster's coordinates, a palette, class names, and nodata where it has none.
        bands, levels: as for :func:`clearclip.utils.images.read_image`; percentiles are those of the whole raster.
        polygons: also write ``out`` with the suffix .geojson.
        colours: (classes, 3) uint8; default: this package's own.
        block: side of what is segmented at a time, in pixels, rounded to windows.
        progress: show a progress bar.
        skip_existing: leave a map at ``out`` as it is that this very call has written before: of the same file, not
            changed since, with the same words, model, method, settings, bands, levels and colours.

    Raises:
        UserError: no raster; windows or a method that need the whole image; bands or levels that nothing explains; a
            place that cannot be written.
    """
    raster, map_path = user_path(raster), user_path(out)
    words = classes
    if not isinstance(words, ClassWords):
        words = ClassWords.parse(words)
    header = raster_header(raster)
    if header is None:
        raise UserError(f"{raster} is no raster; give a TIFF or JPEG 2000, or use segment()")
    if map_path.suffix.lower() not in (".tif", ".tiff"):
        raise UserError(f"{map_path}: a map of labels is a GeoTIFF; use .tif")
    check_not_turned(header, raster)
    _check_settings(model)
    polygons_path = None
    if polygons:
        polygons_path = map_path.with_suffix(".geojson")
    palette = class_palette(words.names, colours)
    # All that can be refused is refused before the words are encoded, and long before the first block.
    with open_raster(raster, header) as dataset:
        reader = RasterReader(dataset, header, str(raster), check_bands(bands), check_levels(levels))
        job = _MapJob(model, reader, model.encode_text(words), block)
        digest = _digest(job, raster, words, palette)
        size = (dataset.height, dataset.width)
        class_pixels = None
        if skip_existing:
            class_pixels = _pixels_of_existing_map(map_path, digest, words.names)
        was_there = class_pixels is not None
        if class_pixels is None:
            class_pixels = job.write(map_path, digest, palette, progress)
    # Made of the map as it was written, so that both agree to the pixel.
    polygon_count = 0
    if polygons_path is not None:
        if was_there and _is_newer(polygons_path, map_path):
            polygon_count = count_polygons(polygons_path)
        else:
            polygon_count = write_polygons(map_path, polygons_path, words.names, palette)
    remarks = tuple(reader.remarks)
    return MapSegmentation(map_path, polygons_path, polygon_count, words.names, class_pixels, size, remarks, was_there)


def _pixels_of_existing_map(map_path: Path, digest: str, names: list[str]) -> np.ndarray | None:
    """How many pixels each class has in a map that depends on the same; None where there is none."""
    existing = read_label_map(map_path, len(names))
    if existing is None or existing.digest != digest:
        return None
    return existing.class_pixels


def _is_newer(polygons_path: Path, map_path: Path) -> bool:
    """Whether polygons are there and were made after the map; older ones are those of a map that was replaced."""
    return polygons_path.is_file() and polygons_path.stat().st_mtime_ns >= map_path.stat().st_mtime_ns


def _check_settings(model: ClearCLIP) -> None:
    """Refuse settings by which a block's labels depend on more than the windows around it."""
    if not model.settings.slide_crop:
        raise UserError("slide_crop=0 takes a whole image at once, which a map is too large for; give it a window")
    if model.settings.post is not None:
        raise UserError(f"post={model.settings.post} smooths over the whole image; leave it out for a map")


def _digest(job: _MapJob, raster: Path, words: ClassWords, palette: np.ndarray) -> str:
    """A hash of all that a map depends on: an interrupted map goes on, and a finished one is left, only with the same.

    The raster is known by its path, size and time of change: to hash its bytes, all of a large file would be read.
    """
    stat = raster.stat()
    colours = job.reader.colours
    model = job.model
    inputs = {
        "raster": [str(raster.resolve()), stat.st_size, stat.st_mtime_ns],
        "size": list(job.size),
        "block": job.block,
        "colours": [list(colours.indexes), str(job.reader.levels)],
        "classes": [list(class_words) for class_words in words.classes],
        "palette": palette.tolist(),
        "model": [model.label, repr(model.settings), repr(model.method.settings), model.precision],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


class _MapJob:
    """The blocks of a raster and their labels.

    Args:
        model: what segments them.
        reader: of the raster.
        text: features of the words.
        block: side of a block in pixels, about.
    """

    def __init__(self, model: ClearCLIP, reader: RasterReader, text: TextFeatures, block: int):
        self.model = model
        self.reader = reader
        self.text = text
        self.size: tuple[int, int] = reader.dataset.shape
        self.crop = model.settings.slide_crop
        self.stride = model.settings.slide_stride
        # Whole strides, so that no window belongs to more blocks than it must.
        self.block = max(1, block // self.stride) * self.stride
        self.dtype, self.nodata = label_type(len(text.classes))

    @property
    def blocks(self) -> list[Block]:
        """Rows and columns of each block, row by row."""
        height, width = self.size
        blocks = []
        for top in range(0, height, self.block):
            for left_edge in range(0, width, self.block):
                rows = slice(top, min(top + self.block, height))
                columns = slice(left_edge, min(left_edge + self.block, width))
                blocks.append((rows, columns))
        return blocks

    def write(self, map_path: Path, digest: str, palette: np.ndarray, progress: bool) -> np.ndarray:
        """Segment the raster and write the map of its labels; returns how many pixels each class has."""
        names = self.text.classes.names
        with unfinished_map(map_path, digest, self.blocks, self.dtype) as finished:
            self._segment_blocks(finished, progress)
            georeference = Georeference.of(self.reader.dataset)
            write_label_map(map_path, finished.strips(), self.size, names, palette, georeference, digest)
            return finished.count_pixels(len(names))

    def _segment_blocks(self, finished: FinishedBlocks, progress: bool) -> None:
        """Segment the blocks that are not finished."""
        blocks = self.blocks
        bar = tqdm(total=len(blocks), initial=finished.count, desc="map", unit="block", disable=not progress)
        with bar:
            for rows, columns in blocks[finished.count :]:
                finished.append(self._block_labels(rows, columns))
                bar.update()

    def _block_labels(self, rows: slice, columns: slice) -> np.ndarray:
        """Labels of a block (rows, columns), from all windows that reach into it."""
        from rasterio.windows import Window

        tile_rows = self._pixels_of_windows(rows, axis=0)
        tile_columns = self._pixels_of_windows(columns, axis=1)
        window = Window.from_slices(tile_rows, tile_columns)
        # The block within its tile.
        block_rows = slice(rows.start - tile_rows.start, rows.stop - tile_rows.start)
        block_columns = slice(columns.start - tile_columns.start, columns.stop - tile_columns.start)
        has_data = self.reader.valid(window)[block_rows, block_columns]
        # Where a raster has no data its encoding would be time for nothing.
        if not has_data.any():
            return np.full(has_data.shape, self.nodata, self.dtype)
        # As wide as the windows reach: a window that is cut would see another picture.
        picture = self.reader.read(window)
        tensor = self.model.normalize(picture)
        ((prediction,),) = self.model.predict([tensor], self.text, [picture.shape[:2]])
        block_labels = prediction.labels[block_rows, block_columns].cpu().numpy().astype(self.dtype)
        block_labels[~has_data] = self.nodata
        return block_labels

    def _pixels_of_windows(self, pixels: slice, axis: int) -> slice:
        """The pixels, along one axis, of all windows of the raster's grid that reach into some pixels.

        Windows begin at multiples of the stride; the last one is shifted back, so that it ends with the raster.
        """
        length = self.size[axis]
        final_start = max(0, length - self.crop)
        first_start = (pixels.start - self.crop) // self.stride * self.stride + self.stride
        first_start = min(max(0, first_start), final_start)
        last_start = (pixels.stop - 1) // self.stride * self.stride
        stop = last_start + self.crop
        if final_start < pixels.stop:
            stop = length
        return slice(first_start, stop)

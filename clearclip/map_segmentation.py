"""Rasters of any size: read and segmented block by block, and written as a map of labels with their coordinates."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clearclip.model import Classes, ClearCLIP
from clearclip.rasters.georeference import Georeference, check_not_turned, raster_header
from clearclip.rasters.label_maps import label_type, write_label_map, write_polygons
from clearclip.rasters.levels import Levels, check_levels
from clearclip.rasters.reader import RasterReader, check_bands, open_raster
from clearclip.text import ClassWords, TextFeatures
from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path, write_text_atomically
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
        remarks: what a user should know about how the raster was read.
    """

    path: Path
    polygons_path: Path | None
    polygon_count: int
    classes: list[str]
    class_pixels: np.ndarray
    remarks: tuple[str, ...] = ()

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels with data that each class covers, 0 to 1, in label order."""
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

    Raises:
        UserError: no raster; windows or a method that need the whole image; bands or levels that nothing explains; a
            place that cannot be written.
    """
    raster, out = user_path(raster), user_path(out)
    words = classes if isinstance(classes, ClassWords) else ClassWords.parse(classes)
    header = raster_header(raster)
    if header is None:
        raise UserError(f"{raster} is no raster; give a TIFF or JPEG 2000, or use segment()")
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise UserError(f"{out}: a map of labels is a GeoTIFF; use .tif")
    check_not_turned(header, raster)
    _check_settings(model)
    with open_raster(raster, header) as dataset:
        reader = RasterReader(dataset, header, str(raster), check_bands(bands), check_levels(levels))
        job = _MapJob(model, reader, model.encode_text(words), block)
        facts = _facts(job, raster, words)
        with _unfinished_labels(out, facts, job) as finished:
            job.run(finished, progress)
            names = words.names
            palette = class_palette(names, colours)
            write_label_map(out, finished.strips(), job.size, names, palette, Georeference.of(dataset))
            class_pixels = finished.count_pixels(len(names))
    polygons_path = out.with_suffix(".geojson") if polygons else None
    count = 0 if polygons_path is None else write_polygons(out, polygons_path, names, palette)
    return MapSegmentation(out, polygons_path, count, names, class_pixels, tuple(reader.remarks))


def _check_settings(model: ClearCLIP) -> None:
    if not model.settings.slide_crop:
        raise UserError("slide_crop=0 takes a whole image at once, which a map is too large for; give it a window")
    if model.settings.post is not None:
        raise UserError(f"post={model.settings.post} smooths over the whole image; leave it out for a map")


def _facts(job: _MapJob, raster: Path, words: ClassWords) -> dict[str, Any]:
    """What the labels of a map depend on, so that an interrupted map goes on with the same."""
    stat = raster.stat()
    return {
        "raster": [str(raster.resolve()), stat.st_size, stat.st_mtime_ns],
        "size": list(job.size),
        "block": job.block,
        "colours": [list(job.reader.colours.indexes), str(job.reader.levels)],
        "classes": [list(class_words) for class_words in words.classes],
        "model": [job.model.label, repr(job.model.settings), job.model.method.label, job.model.precision],
    }


class _MapJob:
    """The blocks of a raster and their labels."""

    def __init__(self, model: ClearCLIP, reader: RasterReader, text: TextFeatures, block: int):
        self.model = model
        self.reader = reader
        self.text = text
        self.size: tuple[int, int] = reader.dataset.shape
        self.crop = model.settings.slide_crop
        self.stride = model.settings.slide_stride
        self.block = max(1, block // self.stride) * self.stride
        self.dtype, self.nodata = label_type(len(text.classes))

    @property
    def blocks(self) -> list[tuple[slice, slice]]:
        """Rows and columns of each block, row by row."""
        row_slices, column_slices = (
            [slice(start, min(start + self.block, length)) for start in range(0, length, self.block)]
            for length in self.size
        )
        return [(rows, columns) for rows in row_slices for columns in column_slices]

    def run(self, finished: _FinishedBlocks, progress: bool) -> None:
        """Segment the blocks that are not finished."""
        blocks = self.blocks
        bar = tqdm(total=len(blocks), initial=finished.count, desc="map", unit="block", disable=not progress)
        with bar:
            for rows, columns in blocks[finished.count :]:
                finished.append(self.labels(rows, columns))
                bar.update()

    def labels(self, rows: slice, columns: slice) -> np.ndarray:
        """Labels of a block, from all windows that reach into it."""
        from rasterio.windows import Window

        tile_rows, tile_columns = self._reach(rows, 0), self._reach(columns, 1)
        window = Window.from_slices(tile_rows, tile_columns)
        # The block within its tile.
        block_rows = slice(rows.start - tile_rows.start, rows.stop - tile_rows.start)
        block_columns = slice(columns.start - tile_columns.start, columns.stop - tile_columns.start)
        has_data = self.reader.valid(window)[block_rows, block_columns]
        # Where a raster has no data its encoding would be time for nothing.
        if not has_data.any():
            return np.full(has_data.shape, self.nodata, self.dtype)
        picture = self.reader.read(window)
        tensor = self.model.normalize(picture)
        ((prediction,),) = self.model.predict([tensor], self.text, [picture.shape[:2]])
        block_labels = prediction.labels[block_rows, block_columns].cpu().numpy().astype(self.dtype)
        block_labels[~has_data] = self.nodata
        return block_labels

    def _reach(self, pixels: slice, axis: int) -> slice:
        """The pixels, along one axis, of all windows of the raster's grid that reach into some pixels.

        Windows begin at multiples of the stride; the last one is shifted back, so that it ends with the raster.
        """
        length = self.size[axis]
        final_start = max(0, length - self.crop)
        first_start = (pixels.start - self.crop) // self.stride * self.stride + self.stride
        first_start = min(max(0, first_start), final_start)
        last_start = (pixels.stop - 1) // self.stride * self.stride
        reaches_the_end = final_start < pixels.stop
        return slice(first_start, length if reaches_the_end else last_start + self.crop)


class _FinishedBlocks:
    """Labels of finished blocks, one after the other in a file, and a note of what they are of and how many.

    The note is written after the block: whenever the process ends, it counts blocks that are there.
    """

    def __init__(self, path: Path, facts: dict[str, Any], job: _MapJob):
        self.path = path
        self.note_path = path.with_name(f"{path.name}.json")
        self.digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self.job = job
        self.count = self._read_count()
        self._shapes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in job.blocks]
        self._file = open(path, "r+b" if self.count else "w+b")  # noqa: SIM115 (closed by its context manager)

    def _read_count(self) -> int:
        try:
            note = json.loads(self.note_path.read_text(encoding="utf-8"))
            if note["of"] == self.digest and self.path.is_file():
                return int(note["blocks"])
        except (OSError, ValueError, KeyError, TypeError):  # none, or of something else
            pass
        return 0

    def append(self, labels: np.ndarray) -> None:
        """Keep the labels of the next block."""
        self._file.seek(self._offset(self.count))
        self._file.write(labels.tobytes())
        self._file.flush()
        self.count += 1
        write_text_atomically(self.note_path, json.dumps({"of": self.digest, "blocks": self.count}))

    def _offset(self, index: int) -> int:
        pixels = sum(height * width for height, width in self._shapes[:index])
        return pixels * np.dtype(self.job.dtype).itemsize

    def _read(self, index: int) -> np.ndarray:
        height, width = self._shapes[index]
        self._file.seek(self._offset(index))
        data = self._file.read(height * width * np.dtype(self.job.dtype).itemsize)
        return np.frombuffer(data, self.job.dtype).reshape(height, width)

    def strips(self) -> Iterator[np.ndarray]:
        """Rows of blocks from the top, each (rows, width)."""
        blocks = self.job.blocks
        per_row = sum(rows.start == 0 for rows, _ in blocks)
        for first in range(0, len(blocks), per_row):
            yield np.concatenate([self._read(index) for index in range(first, first + per_row)], axis=1)

    def count_pixels(self, classes: int) -> np.ndarray:
        """How many pixels each class has, (classes,) int64."""
        pixels = np.zeros(classes, np.int64)
        for index in range(len(self._shapes)):
            pixels += np.bincount(self._read(index).ravel(), minlength=classes)[:classes]
        return pixels

    def close(self) -> None:
        """Leave the file to whoever goes on."""
        self._file.close()

    def remove(self) -> None:
        """All is written elsewhere."""
        self.path.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)


@contextmanager
def _unfinished_labels(out: Path, facts: dict[str, Any], job: _MapJob) -> Iterator[_FinishedBlocks]:
    """The labels of an interrupted map, or none; they are removed when all went well."""
    path = out.with_name(f"{out.name}.part")
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            finished = _FinishedBlocks(path, facts, job)
        except OSError as error:
            raise UserError(f"{out} cannot be written ({error.strerror}); choose another place") from error
        stack.callback(finished.close)
        yield finished
    finished.remove()

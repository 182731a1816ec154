"""Labels of a map while it is being segmented, in a file, so that an interrupted map goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from clearclip.utils.files import unwritable, write_text_atomically

#: Rows and columns of a block in its raster.
Block = tuple[slice, slice]


class FinishedBlocks:
    """Labels of finished blocks, one after the other in a file, and a note of what they are of and how many.

    Args:
        path: of the file; the note has the suffix .json in addition.
        digest: of all that the labels depend on. A file of another digest is begun anew.
        blocks: all blocks of the raster, row by row.
        dtype: of the labels.

    Attributes:
        count: how many blocks are finished.

    Raises:
        OSError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path, digest: str, blocks: Sequence[Block], dtype: type[np.unsignedinteger]):
        self.path = path
        self.note_path = path.with_name(f"{path.name}.json")
        self.digest = digest
        self.dtype = np.dtype(dtype)
        self.blocks_per_row = sum(rows.start == 0 for rows, _ in blocks)
        self.shapes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in blocks]
        self.count = self._read_count()
        # "w" would empty the file, and "r" wants one that is there.
        mode = "w+b"
        if self.count:
            mode = "r+b"
        self._file = open(path, mode)  # noqa: SIM115 (closed by its context manager)

    def _read_count(self) -> int:
        try:
            note = json.loads(self.note_path.read_text(encoding="utf-8"))
            if note["of"] == self.digest and self.path.is_file():
                return int(note["blocks"])
        except (OSError, ValueError, KeyError, TypeError):  # no note, or a damaged one
            pass
        return 0

    def append(self, labels: np.ndarray) -> None:
        """Keep the labels of the next block."""
        self._file.seek(self._offset(self.count))
        self._file.write(labels.tobytes())
        self._file.flush()
        self.count += 1
        # After the block: whenever the process ends, the note counts blocks that are there.
        write_text_atomically(self.note_path, json.dumps({"of": self.digest, "blocks": self.count}))

    def _offset(self, index: int) -> int:
        """Where a block begins, in bytes."""
        pixels = sum(height * width for height, width in self.shapes[:index])
        return pixels * self.dtype.itemsize

    def _labels_of(self, index: int) -> np.ndarray:
        """The labels of a finished block, (rows, columns)."""
        height, width = self.shapes[index]
        self._file.seek(self._offset(index))
        data = self._file.read(height * width * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(height, width)

    def strips(self) -> Iterator[np.ndarray]:
        """Rows of blocks from the top, each (rows, width of the raster)."""
        for first in range(0, len(self.shapes), self.blocks_per_row):
            row_of_blocks = [self._labels_of(index) for index in range(first, first + self.blocks_per_row)]
            yield np.concatenate(row_of_blocks, axis=1)

    def count_pixels(self, classes: int) -> np.ndarray:
        """How many pixels each class has, (classes,) int64; those without data are not counted."""
        pixels = np.zeros(classes, np.int64)
        for index in range(len(self.shapes)):
            pixels += np.bincount(self._labels_of(index).ravel(), minlength=classes)[:classes]
        return pixels

    def close(self) -> None:
        """Leave the file to the call that goes on."""
        self._file.close()

    def remove(self) -> None:
        """Delete file and note, once all labels are written elsewhere."""
        self.path.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)


@contextmanager
def unfinished_map(
    path: Path, digest: str, blocks: Sequence[Block], dtype: type[np.unsignedinteger]
) -> Iterator[FinishedBlocks]:
    """The finished blocks of the map ``path``, in ``path.part``: those of an interrupted call, or none yet.

    They are removed when the block has ended without an error.

    Raises:
        UserError: the place cannot be written.
    """
    blocks_path = path.with_name(f"{path.name}.part")
    try:
        blocks_path.parent.mkdir(parents=True, exist_ok=True)
        finished = FinishedBlocks(blocks_path, digest, blocks, dtype)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield finished
    finally:
        finished.close()
    # Not where the block has raised: the next call goes on with the file.
    finished.remove()

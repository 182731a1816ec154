"""The geometry of sliding windows: where they start, how they are padded, how patches map to pixels.

Upsampling a window's patch grid, cutting off its padding, averaging overlapping windows and resizing the result
to the original image are each linear and separable into rows and columns. So is their composition: with the patch
grids of all windows side by side as one matrix S (all rows of patches × all columns), the logits of the original
image are ``rows @ S @ columns.T``. The two small matrices are made here.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.utils.errors import UserError

#: Matrices that are kept for the next image of the same size take at most so many bytes.
KEPT_BYTES = 1 << 26
_kept: dict[tuple, Tensor] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Axis:
    """Windows along one axis of an image.

    Args:
        length: of the image, in pixels.
        starts: first pixel of each window.
        extent: length of a window in pixels (all are equal: the last one is shifted back inside).
        pad: zeros before and after, that make the extent a multiple of the patch.
        cells: patches per window.
        direct: the whole image at once: its cells are stretched over the output in one step, not over the input first.
    """

    length: int
    starts: tuple[int, ...]
    extent: int
    pad: tuple[int, int]
    cells: int
    direct: bool = False

    @classmethod
    def sliding(cls, length: int, crop: int, stride: int, patch: int, multiple: int) -> Axis:
        """Windows of ``crop`` pixels every ``stride`` pixels, padded to a ``multiple``."""
        count = max(length - crop + stride - 1, 0) // stride + 1
        last = max(length - crop, 0)
        starts = tuple(min(index * stride, last) for index in range(count))
        extent = min(crop, length)
        missing = -extent % multiple
        return cls(length, starts, extent, (missing // 2, missing - missing // 2), (extent + missing) // patch)

    @classmethod
    def whole(cls, length: int, patch: int, cut: bool = True, resize: str = "once") -> Axis:
        """The whole image; what is left over beyond the last full patch is cut off: a strided convolution does not
        see it. Encoders with patches of another size may see more of it.

        Args:
            length: of the image, in pixels.
            patch: length of a patch.
            cut: leave out what is beyond the last full patch.
            resize: how the patches become pixels, "once" or "twice": see the option ``whole_image_resize``.
        """
        cells = length // patch
        if resize == "twice" and cells:
            # Like a window as large as the image: its patches cover all of it, and not only those that a patch sees.
            return cls(length, (0,), length, (0, 0), cells)
        if cells:
            return cls(length, (0,), cells * patch if cut else length, (0, 0), cells, direct=True)
        missing = patch - length
        return cls(length, (0,), length, (missing // 2, missing - missing // 2), 1, direct=resize == "once")

    def weights(self, out_length: int, device: torch.device) -> Tensor:
        """The linear map from all patches along this axis to output pixels: (out_length, windows × cells), float32."""
        key = (self, out_length, str(device))
        with _lock:
            found = _kept.pop(key, None)
        found = _weights(self, out_length).to(device) if found is None else found
        with _lock:
            _kept[key] = found  # as the latest
            while sum(one.nbytes for one in _kept.values()) > KEPT_BYTES:
                del _kept[next(iter(_kept))]
        return found

    def bands(self, out_length: int, tile: int) -> list[tuple[slice, slice]]:
        """Cut the output into tiles: (output pixels, the patches that reach them), as slices of the weights."""
        return _bands(self, out_length, tile)


def _weights(axis: Axis, out_length: int) -> Tensor:
    one_cell_each = torch.eye(axis.cells)[None]
    if axis.direct:
        return _resize(one_cell_each, out_length)[0].T.contiguous()
    padded = axis.extent + sum(axis.pad)
    window = _resize(one_cell_each, padded)[0, :, axis.pad[0] : axis.pad[0] + axis.extent]
    spread = torch.zeros(len(axis.starts), axis.cells, axis.length)
    count = torch.zeros(axis.length)
    for index, start in enumerate(axis.starts):
        spread[index, :, start : start + axis.extent] += window
        count[start : start + axis.extent] += 1
    return _resize((spread / count).flatten(0, 1)[None], out_length)[0].T.contiguous()


@lru_cache(maxsize=256)
def _bands(axis: Axis, out_length: int, tile: int) -> list[tuple[slice, slice]]:
    reached = axis.weights(out_length, torch.device("cpu")) != 0
    bands = []
    for start in range(0, out_length, tile):
        pixels = slice(start, min(start + tile, out_length))
        patches = reached[pixels].any(dim=0).nonzero().flatten()
        bands.append((pixels, slice(int(patches[0]), int(patches[-1]) + 1)))
    return bands


def _resize(signal: Tensor, length: int) -> Tensor:
    return F.interpolate(signal, size=length, mode="linear", align_corners=False)


@dataclass(frozen=True)
class WindowGrid:
    """The windows of one image: the product of its row windows and its column windows (all of one size)."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        crop: int,
        stride: int,
        patch: tuple[int, int],
        square: int | None = None,
        multiple: int | None = None,
        whole_resize: str = "once",
    ) -> WindowGrid:
        """Lay windows over an image.

        Args:
            size: height and width of the image in pixels.
            crop: side of a window; 0 takes the whole image at once.
            stride: step between windows.
            patch: height and width of a patch.
            square: for encoders that take one size only: every window will be resized to this many pixels squared,
                so none is padded.
            multiple: windows are padded to multiples of so many pixels instead of the patch, and whole images not cut.
            whole_resize: of a whole image, "once" or "twice": see the option ``whole_image_resize``.

        Raises:
            UserError: crop or stride that cannot tile an image.
        """
        check_windows(crop, stride)
        axes = []
        for length, step in zip(size, patch, strict=True):
            if square is not None:
                axis = Axis.sliding(length, crop or length, stride or 1, 1, 1)
                axis = replace(axis, cells=square // step, direct=not crop and whole_resize == "once")
            elif crop:
                axis = Axis.sliding(length, crop, stride, step, multiple or step)
            else:
                axis = Axis.whole(length, step, cut=multiple is None, resize=whole_resize)
            axes.append(axis)
        return cls(*axes)

    def with_cells(self, rows: int, columns: int) -> WindowGrid:
        """The same windows with so many rows and columns of features in each."""
        return WindowGrid(replace(self.rows, cells=rows), replace(self.columns, cells=columns))

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.rows.starts) * len(self.columns.starts)

    def cut(self, image: Tensor) -> list[Tensor]:
        """The windows of ``image`` (3, H, W), zero-padded, row by row: views where no padding is needed."""
        top, bottom = self.rows.pad
        left, right = self.columns.pad
        windows = []
        for y in self.rows.starts:
            for x in self.columns.starts:
                window = image[:, y : y + self.rows.extent, x : x + self.columns.extent]
                windows.append(F.pad(window, (left, right, top, bottom)) if top + bottom + left + right else window)
        return windows

    def join(self, grids: Tensor) -> Tensor:
        """Patch grids of all windows (…, windows, h, w, K) side by side: (…, all rows of patches, all columns, K)."""
        grids = grids.unflatten(-4, (len(self.rows.starts), len(self.columns.starts)))
        return grids.transpose(-4, -3).flatten(-3, -2).flatten(-4, -3)


def check_windows(crop: int, stride: int) -> None:
    """Raise a UserError for windows that cannot tile an image."""
    for name, value in (("slide_crop", crop), ("slide_stride", stride)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UserError(f"{name} must be a whole number of pixels, 0 or more, not {value!r}")
    if crop and not stride:
        raise UserError("slide_stride must be at least 1 pixel; slide_crop=0 takes the whole image at once")
    if crop and stride > crop:
        raise UserError(f"slide_stride {stride} is larger than slide_crop {crop} and would leave gaps between windows")

"""The geometry of sliding windows: where they start, what becomes of incomplete patches, how patches map to pixels.

Upsampling a window's patch grid, cutting off its padding, averaging overlapping windows and resizing the result
to the original image are each linear and separable into rows and columns. So is their composition: with the patch
grids of all windows side by side as one matrix S (all rows of patches × all columns), the scores of the original
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
CACHED_BYTES = 1 << 26
#: Where tiles are cut: their slices are Python numbers, for which a GPU would be waited for at every tile.
_HOST = torch.device("cpu")
_cached_weights: dict[tuple, Tensor] = {}
_cache_lock = threading.Lock()


@dataclass(frozen=True)
class Axis:
    """Windows along one axis of an image.

    Args:
        length: of the image, in pixels.
        starts: first pixel of each window.
        extent: length of a window in pixels (all are equal: the last one is shifted back inside).
        pad: zeros before and after the window, whose part of the map is cut off again.
        cells: patches per window, or cells of features where a method has a grid of its own.
        resized: pixels that the window is stretched to before it is encoded; None leaves it as it is.
        direct: the whole image at once: its cells are stretched over the output in one step, not over the input first.
    """

    length: int
    starts: tuple[int, ...]
    extent: int
    pad: tuple[int, int]
    cells: int
    resized: int | None = None
    direct: bool = False

    @classmethod
    def sliding(
        cls, length: int, crop: int, stride: int, patch: int, multiple: int, incomplete: str = "padded"
    ) -> Axis:
        """Windows of ``crop`` pixels every ``stride`` pixels.

        Args:
            length: of the image, in pixels.
            crop, stride: length of a window, and step to the next one.
            patch: length of a patch.
            multiple: padded windows become a multiple of so many pixels.
            incomplete: see the option ``incomplete_windows``.
        """
        count = max(length - crop + stride - 1, 0) // stride + 1
        last_start = max(length - crop, 0)
        starts = tuple(min(index * stride, last_start) for index in range(count))
        extent = min(crop, length)
        return cls(length, starts, extent, (0, 0), 0).with_patches(patch, multiple, incomplete)

    @classmethod
    def whole(
        cls, length: int, patch: int, crop_to_patches: bool = True, resize: str = "once", incomplete: str = "cut"
    ) -> Axis:
        """The whole image as one window.

        Args:
            length: of the image, in pixels.
            patch: length of a patch.
            crop_to_patches: leave out what is beyond the last full patch, which a strided convolution does not see.
                Encoders with patches of another size may see more of it.
            resize: "once" or "twice": see the option ``whole_image_resize``.
            incomplete: see the option ``incomplete_windows``; of whole images, padded ones are cut, as published.
        """
        rule = "cut" if incomplete == "padded" else incomplete
        axis = cls(length, (0,), length, (0, 0), 0).with_patches(patch, patch, rule)
        axis = replace(axis, direct=resize == "once")
        if crop_to_patches and rule == "cut" and axis.direct and length >= patch:
            axis = replace(axis, extent=axis.cells * patch)
        return axis

    def with_patches(self, patch: int, multiple: int, incomplete: str) -> Axis:
        """These windows with their patches counted, and with what is done about an incomplete last patch."""
        cells_rounded_up = -(-self.extent // patch)
        if incomplete == "cut" and self.extent >= patch:
            return replace(self, cells=self.extent // patch)
        if incomplete == "extended":
            return replace(self, cells=cells_rounded_up)
        if incomplete == "stretched" and self.extent % patch:
            return replace(self, cells=cells_rounded_up, resized=cells_rounded_up * patch)
        # Here a "cut" window is smaller than one patch, and padded to it.
        divisor = patch if incomplete == "cut" else multiple
        padding = -self.extent % divisor
        leading = padding // 2
        return replace(self, pad=(leading, padding - leading), cells=(self.extent + padding) // patch)

    def weights(self, out_length: int, device: torch.device) -> Tensor:
        """The linear map from all patches along this axis to output pixels: (out_length, windows × cells), float32."""
        key = (self, out_length, str(device))
        # Not lru_cache, which counts entries: those of large images take megabytes each.
        with _cache_lock:
            weights = _cached_weights.pop(key, None)
        if weights is None:
            weights = _weights_of_axis(self, out_length, device)
        with _cache_lock:
            # As the latest: the matrices of a size that is no longer asked for are dropped first.
            _cached_weights[key] = weights
            while sum(cached.nbytes for cached in _cached_weights.values()) > CACHED_BYTES:
                del _cached_weights[next(iter(_cached_weights))]
        return weights

    def window_weights(self, device: torch.device) -> Tensor:
        """The linear map from the patches of one window to its pixels: (extent, cells), float32."""
        padded = self.extent + sum(self.pad)
        spread = resize_weights(self.cells, padded, device)
        return spread[self.pad[0] : self.pad[0] + self.extent]

    def bands(self, out_length: int, tile: int) -> list[tuple[slice, slice]]:
        """Cut the output into tiles: (output pixels, the patches that reach them), as slices of the weights."""
        return _bands_of_axis(self, out_length, tile)


def resize_weights(length: int, out_length: int, device: torch.device) -> Tensor:
    """The linear map that resizes pixels bilinearly: (out_length, length), float32."""
    return _resize(torch.eye(length, device=device)[None], out_length)[0].T


@lru_cache(maxsize=256)
def resize_bands(length: int, out_length: int, tile: int) -> list[tuple[slice, slice]]:
    """Cut an axis that is resized into tiles: (output pixels, the input's pixels that reach them)."""
    return _bands(resize_weights(length, out_length, _HOST), tile)


def _weights_of_axis(axis: Axis, out_length: int, device: torch.device) -> Tensor:
    if axis.direct:
        return resize_weights(axis.cells, out_length, device).contiguous()
    window = axis.window_weights(device).T
    # What each patch of each window adds to the input's pixels, before it is divided by the windows that see a pixel.
    spread = torch.zeros(len(axis.starts), axis.cells, axis.length, device=device)
    windows_of_pixel = torch.zeros(axis.length, device=device)
    for index, start in enumerate(axis.starts):
        spread[index, :, start : start + axis.extent] += window
        windows_of_pixel[start : start + axis.extent] += 1
    by_input_pixel = (spread / windows_of_pixel).flatten(0, 1)
    return _resize(by_input_pixel[None], out_length)[0].T.contiguous()


@lru_cache(maxsize=256)
def _bands_of_axis(axis: Axis, out_length: int, tile: int) -> list[tuple[slice, slice]]:
    return _bands(axis.weights(out_length, _HOST), tile)


def _bands(weights: Tensor, tile: int) -> list[tuple[slice, slice]]:
    """Tiles of the rows of weights, and from the first to the last column that is not 0 in each."""
    bands = []
    for start in range(0, len(weights), tile):
        pixels = slice(start, min(start + tile, len(weights)))
        reached = (weights[pixels] != 0).any(dim=0).nonzero().flatten()
        bands.append((pixels, slice(int(reached[0]), int(reached[-1]) + 1)))
    return bands


def _resize(signal: Tensor, length: int) -> Tensor:
    return F.interpolate(signal, size=length, mode="linear", align_corners=False)


@dataclass(frozen=True)
class WindowGrid:
    """The windows of one image: the product of its row windows and its column windows (all of one size).

    Args:
        rows, columns: the windows along each axis.
        incomplete: what is done about windows that are no multiple of the patch: see the option ``incomplete_windows``.
        is_whole_image: whether the whole image is one window, however large it is.
    """

    rows: Axis
    columns: Axis
    incomplete: str = "padded"
    is_whole_image: bool = False

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
        incomplete: str = "padded",
    ) -> WindowGrid:
        """Lay windows over an image.

        Args:
            size: height and width of the image in pixels.
            crop: side of a window; 0 takes the whole image at once.
            stride: step between windows.
            patch: height and width of a patch.
            square: for encoders that take one size only: every window will be resized to this many pixels squared,
                so none is incomplete.
            multiple: padded windows become multiples of so many pixels instead of the patch, and whole images are not
                cut.
            whole_resize: of a whole image, "once" or "twice": see the option ``whole_image_resize``.
            incomplete: see the option ``incomplete_windows``.

        Raises:
            UserError: crop or stride that cannot tile an image.
        """
        check_windows(crop, stride)
        axes: list[Axis] = []
        for length, patch_length in zip(size, patch, strict=True):
            if square is not None:
                # Patches of 1 pixel: no window is incomplete, since the tower stretches each to its own size.
                axis = Axis.sliding(length, crop or length, stride or 1, 1, 1)
                axis = replace(axis, cells=square // patch_length, direct=not crop and whole_resize == "once")
            elif crop:
                axis = Axis.sliding(length, crop, stride, patch_length, multiple or patch_length, incomplete)
            else:
                axis = Axis.whole(length, patch_length, multiple is None, whole_resize, incomplete)
            axes.append(axis)
        rows, columns = axes
        return cls(rows, columns, incomplete if square is None else "padded", is_whole_image=not crop)

    def with_cells(self, rows: int, columns: int) -> WindowGrid:
        """The same windows with so many rows and columns of features in each."""
        return replace(self, rows=replace(self.rows, cells=rows), columns=replace(self.columns, cells=columns))

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Row and column in pixels of the first pixel of each window, row by row."""
        return [(y, x) for y in self.rows.starts for x in self.columns.starts]

    def cell_positions(self, cells: tuple[int, int], patch: tuple[int, int]) -> Tensor:
        """Row and column in pixels where each cell of each window begins, (windows, *cells, 2) int64.

        Args:
            cells: rows and columns of cells in a window.
            patch: height and width of a cell in pixels.
        """
        y, x, row, column = torch.meshgrid(
            torch.tensor(self.rows.starts),
            torch.tensor(self.columns.starts),
            patch[0] * torch.arange(cells[0]),
            patch[1] * torch.arange(cells[1]),
            indexing="ij",
        )
        return torch.stack([y + row, x + column], dim=-1).flatten(0, 1)

    def cut(self, image: Tensor) -> list[Tensor]:
        """The windows of ``image`` (3, H, W), zero-padded or stretched, row by row: views where nothing is done."""
        padding = (*self.columns.pad, *self.rows.pad)
        windows = []
        for y, x in self.corners:
            window = image[:, y : y + self.rows.extent, x : x + self.columns.extent]
            # F.pad copies also where there is nothing to pad.
            if any(padding):
                window = F.pad(window, padding)
            windows.append(self._stretched(window))
        return windows

    def _stretched(self, window: Tensor) -> Tensor:
        if self.rows.resized is None and self.columns.resized is None:
            return window
        height, width = window.shape[1:]
        size = (self.rows.resized or height, self.columns.resized or width)
        return F.interpolate(window[None], size=size, mode="bicubic", align_corners=False)[0]

    def join(self, grids: Tensor) -> Tensor:
        """Patch grids of all windows (…, windows, h, w, K) side by side: (…, all rows of patches, all columns, K)."""
        grids = grids.unflatten(-4, (len(self.rows.starts), len(self.columns.starts)))
        return grids.transpose(-4, -3).flatten(-3, -2).flatten(-4, -3)


def check_windows(crop: int, stride: int) -> None:
    """Raise a UserError for windows that cannot tile an image."""
    for name, value in (("slide_crop", crop), ("slide_stride", stride)):
        # True is an int, but no number of pixels.
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UserError(f"{name} must be a whole number of pixels, 0 or more, not {value!r}")
    if crop and not stride:
        raise UserError("slide_stride must be at least 1 pixel; slide_crop=0 takes the whole image at once")
    if crop and stride > crop:
        raise UserError(f"slide_stride {stride} is larger than slide_crop {crop} and would leave gaps between windows")

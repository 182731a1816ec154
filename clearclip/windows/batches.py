"""Windows of many images, sorted into batches of one size, and what is gathered of them image by image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.windows.window_grid import WindowGrid


@dataclass
class EncodedWindows:
    """The windows of one image by one method, as they are encoded one after the other.

    Attributes:
        grid: where the windows lie.
        scores: of each window, (h, w, words).
        features: of each window, those that the method keeps for the whole image, by name.
        stacked: the scores of all windows, (windows, h, w, words), where those of several images were stacked at once.
    """

    grid: WindowGrid
    scores: list[Tensor] = field(default_factory=list)
    features: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    stacked: Tensor | None = None

    def clear(self) -> None:
        """Free what was held of the windows."""
        self.scores.clear()
        self.features.clear()
        self.stacked = None


@dataclass
class WindowBatch:
    """Windows of one size that the same methods see, so that they can be encoded together.

    Attributes:
        method_numbers: where the methods stand among those of the pass.
        incomplete: what is done about windows that are no multiple of the patch.
        image_numbers: of each window, where its image stands among those of the pass.
        windows: (3, h, w) each.
    """

    method_numbers: tuple[int, ...]
    incomplete: str
    image_numbers: list[int] = field(default_factory=list)
    windows: list[Tensor] = field(default_factory=list)

    def part(self, start: int, count: int) -> WindowBatch:
        """``count`` of the windows, from number ``start`` on, or those that are left."""
        stop = start + count
        return replace(self, image_numbers=self.image_numbers[start:stop], windows=self.windows[start:stop])


def window_batches(images: Sequence[Tensor], encoded: Sequence[Sequence[EncodedWindows]]) -> Iterator[WindowBatch]:
    """The windows of all images, those together that have one size and are seen by the same methods."""
    batches: dict[tuple, WindowBatch] = {}
    for number, (image, windows_by_method) in enumerate(zip(images, encoded, strict=True)):
        methods_by_grid: dict[WindowGrid, list[int]] = defaultdict(list)
        for method, windows in enumerate(windows_by_method):
            methods_by_grid[windows.grid].append(method)
        # Methods that see the same windows are computed in one pass, which shares all but the last blocks.
        for grid, methods in methods_by_grid.items():
            for window in grid.cut(image):
                # Images of other sizes join in where their windows have the same size.
                key = (window.shape, grid.incomplete, *methods)
                batch = batches.setdefault(key, WindowBatch(tuple(methods), grid.incomplete))
                batch.image_numbers.append(number)
                batch.windows.append(window)
    yield from batches.values()


def stack_windows(encoded: Sequence[Sequence[EncodedWindows]]) -> None:
    """Stack the scores of all windows, those of all images and methods that have the same windows in one go."""
    images_by_grid: dict[tuple, list[EncodedWindows]] = defaultdict(list)
    for windows_by_method in encoded:
        for windows in windows_by_method:
            images_by_grid[windows.grid, tuple(windows.scores[0].shape)].append(windows)
    for images in images_by_grid.values():
        scores = torch.stack([window for image in images for window in image.scores])
        scores_by_image = scores.unflatten(0, (len(images), -1)).unbind()
        for image, scores_of_image in zip(images, scores_by_image, strict=True):
            image.stacked = scores_of_image


def extend(images: Tensor, patch: tuple[int, int], black: Tensor) -> Tensor:
    """Images (B, 3, H, W) with black at the right and below, so that both sides are multiples of the patch.

    Args:
        black: its value in each channel, (3, 1, 1).
    """
    height, width = images.shape[-2:]
    right, below = -width % patch[1], -height % patch[0]
    if not (right or below):
        return images
    # Padding adds zeros, so black is made to be zero meanwhile.
    return F.pad(images - black, (0, right, 0, below)) + black

"""How the windows of an image become one map of scores, and what is known of the image by then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from clearclip.windows.score_map import ScoreMap, WindowProbabilities
from clearclip.windows.window_grid import WindowGrid


@dataclass(frozen=True)
class ImageContext:
    """What a method may look at when it joins windows, and what a post-processing may look at.

    Attributes:
        image: the normalised image as it was cut into windows, (3, H, W) float32.
        size: height and width of the original image.
        text: the words' features, (words, E) float32, of length 1.
        word_to_class: the class of each word, (words,) int64, ascending from 0.
        features: for a method that keeps them (``Method.keeps``), by name: features of all windows,
            (windows, rows, columns, C), windows row by row.
        second_patch: height and width in pixels of the second encoder's patches.
        windows_joined_by: what is averaged where windows overlap, "similarities" or "probabilities".
        logit_scale: factor of the scores before a softmax.
        has_post_processing: whether one follows.
        denormalize: normalised images to 0..1 RGB.
    """

    image: Tensor
    size: tuple[int, int]
    text: Tensor
    word_to_class: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    second_patch: tuple[int, int] | None = None
    windows_joined_by: str = "similarities"
    logit_scale: float = 1.0
    has_post_processing: bool = False
    denormalize: Callable[[Tensor], Tensor] | None = None

    @cached_property
    def rgb(self) -> Tensor:
        """The image as it was cut into windows, 0..1 RGB, (3, H, W)."""
        return self.denormalize(self.image)

    @cached_property
    def image_at_original_size(self) -> Tensor:
        """The normalised image, resized bilinearly to the original size, (3, *size)."""
        return F.interpolate(self.image[None], size=self.size, mode="bilinear", align_corners=False)[0]


def join_windows(windows: Tensor, grid: WindowGrid, context: ImageContext) -> ScoreMap:
    """The mean over windows of their scores, or of their probabilities, as the context says.

    Args:
        windows: scores of all windows, (windows, h, w, words), windows row by row.
        grid: where the windows lie.
        context: what is known of the image.
    """
    grid = grid.with_cells(*windows.shape[1:3])
    scores = grid.join(windows)
    if context.windows_joined_by == "probabilities":
        return WindowProbabilities(scores, grid, context.logit_scale)
    return ScoreMap(scores, grid)

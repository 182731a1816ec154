"""PAMR, pixel-adaptive mask refinement: every pixel takes on what its neighbours of like colour have, ten times over
(Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, arXiv 2005.08104).

With I the image, y one of the 8 neighbours of x at each dilation, and sd_c(x) the standard deviation of channel c over
the 3 × 3 places of all dilations (the centre counted once for each):

    w(x, y) = softmax over y of -mean_c |I_c(x) - I_c(y)| / (1e-8 + 0.1 sd_c(x))
    m(x)   <- sum_y w(x, y) m(y)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.utils.errors import UserError
from clearclip.utils.registry import option
from clearclip.utils.validators import of_type
from clearclip.windows.joining import ImageContext
from clearclip.windows.post_processing import POST_PROCESSINGS, PostProcessing
from clearclip.windows.score_map import ScoreMap, Tile

#: Pixels of which the weights are held at a time, beside those within reach.
PIXELS_AT_ONCE = 2 << 20
#: Bytes of the maps in work: where they are more, glibc hands their memory back after every step.
MAP_BYTES = {"cpu": 16 << 20, "cuda": 64 << 20, "mps": 64 << 20}
WORDS_AT_ONCE = 16  # at least, so that a pixel's values are neighbours in memory


def _distances(name: str, value: Any) -> tuple[int, ...]:
    """A check: pixels from 1, as a tuple."""
    distances = tuple(value) if isinstance(value, list | tuple) else ()
    # By the type itself: True is an instance of int.
    if not distances or not all(type(pixels) is int and pixels > 0 for pixels in distances):
        raise UserError(f"{name} must be whole numbers of pixels from 1, not {value!r}")
    return distances


@POST_PROCESSINGS.register_module("pamr")
@dataclass(frozen=True)
class PAMR(PostProcessing):
    """Scores at the original size, refined by the colours of the image.

    Args:
        steps: how often each pixel takes on its neighbours' values.
        dilations: distances of the neighbours in pixels.
    """

    steps: int = option(10, of_type(int, low=0, high=1000))
    dilations: tuple[int, ...] = option((8, 16), _distances)

    def __call__(self, scores: ScoreMap, context: ImageContext) -> RefinedScores:
        return RefinedScores(scores.scores, scores.grid, scores, context.image_at_original_size, self)

    @property
    def reach(self) -> int:
        """Rows above and below a part of an image that its result depends on."""
        return self.steps * max(self.dilations)


@dataclass(frozen=True)
class RefinedScores(ScoreMap):
    """Scores that PAMR refines when they are read, band by band.

    Attributes:
        base: the scores before.
        image: the normalised image at the size at which the scores are read, (3, H, W).
        pamr: steps and dilations.
    """

    base: ScoreMap
    image: Tensor
    pamr: PAMR

    @property
    def are_probabilities(self) -> bool:
        return self.base.are_probabilities

    def to(self, device: torch.device | str) -> RefinedScores:
        base = self.base.to(device)
        return replace(self, scores=base.scores, base=base, image=self.image.to(device))

    def tiles(self, size: tuple[int, int]) -> Iterator[Tile]:
        height, width = size
        # A band reads as far around itself as the steps reach: a narrower one would mostly compute its margins.
        step = max(self.pamr.reach, PIXELS_AT_ONCE // width, 1)
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            yield Tile(rows, slice(0, width), self._refined_words(size, rows))

    def _refined_words(self, size: tuple[int, int], rows: slice) -> Iterator[Tensor]:
        """Refined scores of a band of rows, (words, rows, width) for some words after the others."""
        height, width = size
        reach = self.pamr.reach
        around = slice(max(0, rows.start - reach), min(height, rows.stop + reach))
        inside = slice(rows.start - around.start, rows.stop - around.start)
        weights = NeighbourWeights(self.image[:, around], self.pamr.dilations)
        row_bytes = 4 * width * (around.stop - around.start)
        words_at_once = max(WORDS_AT_ONCE, MAP_BYTES[self.device.type] // row_bytes)
        for first in range(0, self.scores.shape[2], words_at_once):
            maps = self.base.band(size, around, slice(first, first + words_at_once))
            yield weights.refine(maps, self.pamr.steps)[inside].permute(2, 0, 1)


class NeighbourWeights:
    """The weights of an image, or of a part of it.

    Args:
        image: (3, H, W), normalised.
        dilations: distances of the neighbours in pixels.
    """

    def __init__(self, image: Tensor, dilations: Sequence[int]):
        height, width = image.shape[-2:]
        rows = torch.arange(height, device=image.device, dtype=torch.int32)
        columns = torch.arange(width, device=image.device, dtype=torch.int32)
        offsets = neighbour_offsets(dilations)
        pixel_numbers = []
        for down, right in offsets:
            row = (rows + down).clamp(0, height - 1)[:, None]
            column = (columns + right).clamp(0, width - 1)
            pixel_numbers.append((row * width + column).flatten())
        #: Which pixels are the neighbours of each, (H·W, 8 × dilations) int32; borders are replicated.
        self.neighbours = torch.stack(pixel_numbers, dim=1)
        #: w, (H·W, 8 × dilations) float32.
        self.weights = _weights_of_neighbours(image.float(), offsets, len(dilations))

    def refine(self, maps: Tensor, steps: int) -> Tensor:
        """m after all steps: maps (H, W, K) float32 to the same."""
        values = maps.flatten(0, 1)
        # A weighted sum of rows is what an embedding bag computes, without an array of pixels × neighbours × words.
        for _ in range(steps):
            values = F.embedding_bag(self.neighbours, values, mode="sum", per_sample_weights=self.weights)
        return values.view_as(maps)


def neighbour_offsets(dilations: Sequence[int]) -> list[tuple[int, int]]:
    """Rows down and columns right to the 8 neighbours at each dilation."""
    directions = [step for step in product((-1, 0, 1), repeat=2) if step != (0, 0)]
    return [(dilation * down, dilation * right) for dilation in dilations for down, right in directions]


def _weights_of_neighbours(image: Tensor, offsets: Sequence[tuple[int, int]], centres: int) -> Tensor:
    """w, (H·W, neighbours) float32; the centre is counted ``centres`` times in the standard deviation."""
    height, width = image.shape[-2:]
    reach = max(max(offset) for offset in offsets)
    padded = F.pad(image[None], (reach,) * 4, mode="replicate")[0]
    # Views of the image, shifted: nothing is copied.
    neighbours = []
    for down, right in offsets:
        top_row, left_column = reach + down, reach + right
        neighbours.append(padded[:, top_row : top_row + height, left_column : left_column + width])
    count = len(neighbours) + centres
    mean = (centres * image + sum(neighbours)) / count
    squares = centres * (image - mean).square()
    for neighbour in neighbours:
        squares += (neighbour - mean).square_()
    sharpness = 1 / (1e-8 + 0.1 * (squares / (count - 1)).sqrt())
    differences = []
    for neighbour in neighbours:
        differences.append((image - neighbour).abs_().mul_(sharpness).mean(dim=0))
    # Neighbours of a pixel side by side, as the embedding bag reads them.
    return torch.stack(differences).flatten(1).neg_().softmax(dim=0).T.contiguous()

"""LPOSS+, the second stage of LPOSS (CVPR 2025, arXiv 2503.19777): scores spread over a graph of the image's pixels.

With l the Lab colours of the image as it was cut into windows, divided by 100, 128 and 128, the neighbours of a pixel
are the others of the 13 × 13 square around it (6 pixels each way), with weights exp(-|l_x - l_y| / tau); the rest is as
in LPOSS. The graph is held as a stencil, of 336 bytes a pixel, and never as a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clearclip.utils.registry import option
from clearclip.utils.validators import of_type
from clearclip.windows.joining import ImageContext
from clearclip.windows.lab_colours import constant, lab
from clearclip.windows.label_propagation import propagate
from clearclip.windows.pixel_stencil import NeighbourPairs, Region, neighbour_sums, normalized_stencil
from clearclip.windows.post_processing import POST_PROCESSINGS, PostProcessing
from clearclip.windows.score_map import ScoreMap, spread_class_maxima

WORD_BYTES = 64 << 20  # of pixels × words that are solved for at a time
LAB_RANGE = (100.0, 128.0, 128.0)


@POST_PROCESSINGS.register_module("lposs+")
@dataclass(frozen=True)
class LPOSSPlus(PostProcessing):
    """LPOSS+ on the scores at the size of the image that was cut into windows.

    Args:
        tau: how alike neighbours must be.
        reach: of the square of neighbours, in pixels.
        alpha, steps: share of the neighbours, and steps of conjugate gradients.
    """

    tau: float = option(0.01, of_type(int, float, low=1e-6))
    reach: int = option(6, of_type(int, low=1))
    alpha: float = option(0.95, of_type(int, float, low=0, high=0.999))
    steps: int = option(10, of_type(int, low=1, high=10000))

    def __call__(self, scores: ScoreMap, context: ImageContext) -> ScoreMap:
        pixels = scores.dense(tuple(context.image.shape[1:]))
        stencil = self.stencil(context.rgb)
        # Words do not see each other, so some at a time give what all give.
        words_at_once = max(1, WORD_BYTES // (4 * pixels[..., 0].numel()))
        solutions = []
        for words in pixels.split(words_at_once, dim=2):
            solutions.append(propagate(lambda x: neighbour_sums(stencil, x), words, self.alpha, self.steps))
        # The release takes the largest of a class's words before it resizes the maps to the original.
        return ScoreMap.of_cells(spread_class_maxima(torch.cat(solutions, dim=2), context.word_to_class))

    def stencil(self, rgb: Tensor) -> list[NeighbourPairs]:
        """S of an image, (3, H, W) 0..1 RGB."""
        colours = lab(rgb) / constant(LAB_RANGE, rgb.device)[:, None, None]

        def weigh(pixels: Region, neighbours: Region) -> Tensor:
            difference = colours[:, pixels[0], pixels[1]] - colours[:, neighbours[0], neighbours[1]]
            return torch.exp(-difference.norm(dim=0) / self.tau)

        return normalized_stencil(tuple(rgb.shape[1:]), self.reach, weigh, rgb.device)

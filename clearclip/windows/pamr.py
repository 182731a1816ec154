"""PAMR, pixel-adaptive mask refinement: every pixel takes on what its neighbours of like colour have, ten times over
(Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, arXiv 2005.08104).

With I the image, y one of the 8 neighbours of x at each dilation, and sd_c(x) the standard deviation of channel c over
the 3 × 3 places of all dilations (the centre counted once for each):

    w(x, y) = softmax over y of -mean_c |I_c(x) - I_c(y)| / (1e-8 + 0.1 sd_c(x))
    m(x)   <- sum_y w(x, y) m(y)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 10
DILATIONS = (8, 16)
#: Rows above and below a part of an image that its result depends on.
REACH = STEPS * max(DILATIONS)
#: Pixels of which the weights are held at a time, beside those within reach.
PIXELS = 2 << 20
#: Bytes of the maps in work: where they are more, glibc hands their memory back after every step.
MAP_BYTES = {"cpu": 16 << 20, "cuda": 64 << 20, "mps": 64 << 20}
WORDS = 8  # at least so many at a time, that a pixel's are neighbours in memory
NEIGHBOURS = [
    (dilation * row, dilation * column)
    for dilation in DILATIONS
    for row, column in product((-1, 0, 1), repeat=2)
    if (row, column) != (0, 0)
]


class PAMR:
    """The weights of an image, or of a part of it.

    Args:
        image: (3, H, W), normalised.
    """

    def __init__(self, image: Tensor):
        height, width = image.shape[-2:]
        rows, columns = (torch.arange(n, device=image.device, dtype=torch.int32) for n in (height, width))
        #: Which pixels are the neighbours of each, (H·W, 16) int32; borders are replicated.
        self.neighbours = torch.stack(
            [
                ((rows + down).clamp(0, height - 1)[:, None] * width + (columns + right).clamp(0, width - 1)).flatten()
                for down, right in NEIGHBOURS
            ],
            dim=1,
        )
        #: w, (H·W, 16) float32.
        self.weights = _weigh(image.float())

    def __call__(self, maps: Tensor) -> Tensor:
        """m after all steps: maps (H, W, K) float32 to the same."""
        values = maps.flatten(0, 1)
        for _ in range(STEPS):
            values = F.embedding_bag(self.neighbours, values, mode="sum", per_sample_weights=self.weights)
        return values.view_as(maps)


def _weigh(image: Tensor) -> Tensor:
    """w, (H·W, 16) float32."""
    reach, (height, width) = max(DILATIONS), image.shape[-2:]
    padded = F.pad(image[None], (reach,) * 4, mode="replicate")[0]
    others = [padded[:, reach + y : reach + y + height, reach + x : reach + x + width] for y, x in NEIGHBOURS]
    count = len(others) + len(DILATIONS)
    mean = (len(DILATIONS) * image + sum(others)) / count
    squares = len(DILATIONS) * (image - mean).square()
    for other in others:
        squares += (other - mean).square_()
    sharpness = 1 / (1e-8 + 0.1 * (squares / (count - 1)).sqrt())
    unlike = torch.stack([(image - other).abs_().mul_(sharpness).mean(dim=0) for other in others])
    return unlike.flatten(1).neg_().softmax(dim=0).T.contiguous()


def refine(by_word: Tensor, rows: Tensor, columns: Tensor, image: Tensor) -> Iterator[tuple[slice, Iterator[Tensor]]]:
    """Refined logits, for as many rows of pixels and as many words at a time as memory is meant for.

    Args:
        by_word: similarities (words, rows of patches, columns of patches), float32.
        rows, columns: the linear maps from patches to pixels, (H, rows of patches) and (W, columns of patches).
        image: the normalised image, (3, H, W).

    Returns:
        Slices of rows, and for each the logits (words, rows, W), some words after the others.
    """
    _, height, width = image.shape
    step = max(REACH, PIXELS // width)
    for top in range(0, height, step):
        band = slice(top, min(top + step, height))
        around = slice(max(0, band.start - REACH), min(height, band.stop + REACH))
        pamr, own = PAMR(image[:, around]), slice(band.start - around.start, band.stop - around.start)
        at_once = max(WORDS, MAP_BYTES[image.device.type] // (4 * width * (around.stop - around.start)))
        parts = (columns @ some for some in by_word.permute(1, 2, 0).split(at_once, dim=2))
        maps = ((rows[around] @ part.flatten(1)).unflatten(1, (width, -1)) for part in parts)
        yield band, (pamr(some)[own].permute(2, 0, 1) for some in maps)

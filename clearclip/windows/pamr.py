"""PAMR, pixel-adaptive mask refinement: every pixel takes on what its neighbours of like colour have, ten times over
(Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, arXiv 2005.08104).

With I the image, y one of the 8 neighbours of x at each dilation, and sd_c(x) the standard deviation of channel c over
the 3 × 3 places of all dilations (the centre counted once for each):

    w(x, y) = softmax over y of -mean_c |I_c(x) - I_c(y)| / (1e-8 + 0.1 sd_c(x))
    m(x)   <- sum_y w(x, y) m(y)

All dilations are multiples of 8, so a pixel looks at its own lattice, every eighth row and column, and at the image's
edges, which stand for what is outside. On a CPU the edges go ahead, with all that they depend on; then each lattice
takes all its steps while it is in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 10
DILATIONS = (8, 16)
#: Rows above and below a part of an image that its result depends on.
REACH = STEPS * max(DILATIONS)
#: Pixels of which the weights are held at a time, beside those within reach, and bytes of the maps in work: of all
#: pixels, and on a CPU of one lattice.
PIXELS = 2 << 20
MAP_BYTES, LATTICE_BYTES = 64 << 20, 5 << 18
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
        self.height, self.width = image.shape[-2:]
        self.step = math.gcd(*DILATIONS) if image.device.type == "cpu" else 1
        weights = _weigh(image.float())
        pixels = torch.arange(self.height * self.width, device=image.device).view(self.height, self.width)
        edges = torch.cat([pixels[[0, -1]].flatten(), pixels[:, [0, -1]].flatten()]).unique()
        #: Pixels that go ahead, in the order in which their last steps are taken, and how many take each step.
        self.ahead, self.counts = edges[: len(edges) if self.step > 1 else 0], []
        seen = torch.zeros(self.height * self.width, dtype=torch.bool, device=image.device)
        for _ in range(STEPS - 1):
            self.counts.insert(0, len(self.ahead))
            seen[self.ahead] = True
            needed = torch.zeros_like(seen).index_fill_(0, self._neighbours(self.ahead).flatten(), True)
            self.ahead = torch.cat([self.ahead, (needed & ~seen).nonzero().flatten()])
        places = torch.zeros(len(seen), dtype=torch.int32, device=image.device)
        places[self.ahead] = torch.arange(len(self.ahead), dtype=torch.int32, device=image.device)
        taking = self.ahead[: self.counts[0]]
        self.links = places[self._neighbours(taking)], weights[taking]
        #: Pixels of each lattice, those first that see edges; their links with each other, and with the edges.
        self.lattices = []
        for row, column in product(range(min(self.step, self.height)), range(min(self.step, self.width))):
            own = pixels[row :: self.step, column :: self.step].flatten()
            seen.zero_()[own] = True
            outside = ~seen[self._neighbours(own)]
            order = outside.any(dim=1).logical_not().argsort(stable=True)
            own, outside, count = own[order], outside[order], int(outside.any(dim=1).sum())
            neighbours, shares = self._neighbours(own), weights[own]
            inner = torch.zeros_like(places).index_copy_(0, own, torch.arange(len(own)).to(places))[neighbours]
            links = inner.masked_fill_(outside, 0), shares.masked_fill(outside, 0)
            to_edges = places[neighbours[:count]].masked_fill_(~outside[:count], 0)
            self.lattices.append((own, links, (to_edges, shares[:count].masked_fill(~outside[:count], 0))))

    def _neighbours(self, pixels: Tensor) -> Tensor:
        """The neighbours of pixels (N,), int64 (N, 16); borders are replicated."""
        rows, columns = pixels // self.width, pixels % self.width
        places = [
            (rows + down).clamp(0, self.height - 1) * self.width + (columns + right).clamp(0, self.width - 1)
            for down, right in NEIGHBOURS
        ]
        return torch.stack(places, dim=1)

    def __call__(self, maps: Tensor) -> Tensor:
        """m after all steps: maps (K, H, W) float32 to the same."""
        values = maps.flatten(1).T.clone(memory_format=torch.contiguous_format)
        ahead = [values.index_select(0, self.ahead)]
        for count in self.counts:
            ahead.append(_step(ahead[-1], *(link[:count] for link in self.links)))
        for own, links, to_edges in self.lattices:
            lattice = values.index_select(0, own)
            for edges in ahead:
                lattice = _step(lattice, *links)
                if count := len(to_edges[0]):
                    lattice[:count] += _step(edges, *to_edges)
            values.index_copy_(0, own, lattice)
        return values.T.unflatten(1, maps.shape[1:])


def _step(values: Tensor, neighbours: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(neighbours, values, mode="sum", per_sample_weights=weights)


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
        at_once = max(1, MAP_BYTES // (4 * width * (around.stop - around.start)))
        if pamr.step > 1:  # whole vectors of words
            at_once = min(at_once, max(16, LATTICE_BYTES // (4 * len(pamr.lattices[0][0])) // 16 * 16))
        yield band, (pamr(rows[around] @ some @ columns.T)[:, own] for some in by_word.split(at_once))

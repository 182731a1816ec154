"""LPOSS: similarities spread over one graph of the patches of all windows (Stojnić, Kalantidis, Matas and Tolias,
"LPOSS: Label Propagation Over Patches and Pixels for Open-vocabulary Semantic Segmentation", CVPR 2025).

Nodes are the patches of all windows; a place in several windows is several nodes. With c the cosine similarities of the
values in a second encoder's last block, p the places in pixels, and Y the patches' similarities to words by MaskCLIP:

    w_ij = max(0, c_ij)^gamma exp(-sigma |p_i - p_j|) for the k nodes j of largest c_ij, 0 for i itself and others
    S    = D^(-1/2) (W + Wᵀ) D^(-1/2),   D the sums of W + Wᵀ
    (I - alpha S) X = Y, by ten steps of conjugate gradients

and X is joined as similarities are. LPOSS+ is :mod:`clearclip.windows.lposs_plus`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.around_base import MethodAroundBase
from clearclip.methods.block_parts import BlockParts
from clearclip.methods.method import METHODS, Context, Method, any_method, option
from clearclip.utils.errors import UserError
from clearclip.utils.validators import of_type
from clearclip.windows.joining import ImageContext
from clearclip.windows.label_propagation import neighbour_graph, propagate
from clearclip.windows.score_map import ClassMaxima, ScoreMap, spread_class_maxima
from clearclip.windows.window_grid import WindowGrid

#: The second encoder of the paper.
LPOSS_SECOND_ENCODER = "dino-vitb16"


def without_second_encoder(name: str, value: Any) -> Method:
    """A check: a method that needs no second encoder, or its description."""
    method = any_method(name, value)
    if "second encoder" in method.needs:
        raise UserError(f"{name} must be a method without a second encoder, which {method.label} has")
    return method


@METHODS.register_module()
@dataclass(frozen=True)
class LPOSS(MethodAroundBase):
    """LPOSS around another method. Of an image the second encoder's features of all windows are kept, and k neighbours
    of each patch.

    Args:
        base: the method whose similarities are spread: a name, a dict or a method, as for ``build_method``.
        guide, guide_weights: the second encoder, as for ProxyCLIP. None means the model's own, or DINO's ViT-B/16.
        neighbours: k, at most all nodes; a patch itself is one of them.
        gamma, sigma: exponent of the similarities, and decay of the weights by pixel of distance.
        alpha, steps: share of the neighbours, and steps of conjugate gradients.
    """

    base: Method = option("MaskCLIP", without_second_encoder)
    guide: str | None = option(None, of_type(str, None))
    guide_weights: str | None = option(None, of_type(str, None))
    neighbours: int = option(400, of_type(int, low=1))
    gamma: float = option(3.0, of_type(int, float, low=0, high=100))
    sigma: float = option(0.01, of_type(int, float, low=0))
    alpha: float = option(0.95, of_type(int, float, low=0, high=0.999))
    steps: int = option(10, of_type(int, low=1, high=10000))

    keeps = ("second encoder",)
    second_encoder_features = "values"
    position_resize = "size without antialias"
    incomplete_windows = "extended"

    @property
    def needs(self) -> Collection[str]:
        return {"second encoder", *self.base.needs}

    @property
    def label(self) -> str:
        label = super().label
        # The paper's LPOSS is the one on MaskCLIP, so its name goes without saying.
        if self.base == METHODS["MaskCLIP"]():
            return label.removeprefix("MaskCLIP + ")
        return label

    def completed(self, options: Mapping[str, Mapping[str, Any]]) -> Method:
        completed = super().completed(options)
        return replace(completed, guide=completed.guide or LPOSS_SECOND_ENCODER)

    def required_blocks(self, blocks: int) -> Collection[int]:
        return self.base.required_blocks(blocks)

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor, context: Context) -> Tensor:
        return self.base(blocks, x, context)

    def scores(self, features: Tensor, context: Context) -> Tensor:
        """Cosine similarities on the second encoder's grid."""
        unit = F.normalize(features.float(), dim=-1)
        grid = context.second.shape[1:3]
        # Directions are resized, not similarities to words, as in the release.
        if unit.shape[1:3] != grid:
            resized = F.interpolate(unit.permute(0, 3, 1, 2), size=grid, mode="bilinear", align_corners=False)
            unit = F.normalize(resized.permute(0, 2, 3, 1), dim=-1)
        return unit @ context.text.T

    def join(self, windows: Tensor, grid: WindowGrid, context: ImageContext) -> ScoreMap:
        nodes = F.normalize(context.features["second encoder"].flatten(0, 2).float(), dim=-1)
        positions = grid.cell_positions(windows.shape[1:3], context.second_patch).flatten(0, 2).to(nodes)
        weights = neighbour_graph(nodes, positions, self.neighbours, self.gamma, self.sigma)
        # In the dtype of the graph, float64 where there is one: steps that do not converge show their rounding.
        similarities = windows.flatten(0, 2).to(weights.dtype)
        solution = propagate(lambda x: weights @ x, similarities, self.alpha, self.steps).to(windows).view_as(windows)
        # The release takes the largest of a class's words before it resizes to the original, or, of a whole image, on
        # the grid of patches; not where LPOSS+ follows, which does so itself.
        if grid.is_whole_image and not context.has_post_processing:
            solution = spread_class_maxima(solution, context.word_to_class)
        joined = super().join(solution, grid, context)
        if grid.is_whole_image or context.has_post_processing:
            return joined
        return ClassMaxima(joined.scores, joined.grid, context.word_to_class)

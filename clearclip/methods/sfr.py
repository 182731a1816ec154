"""SFR, "semantic feedback refinement": the second module of ResCLIP (Yang, Deng, Li and Duan, "ResCLIP: Residual
Attention for Training-free Dense Vision-language Inference", CVPR 2025, arXiv 2411.15851).

The last block runs twice. From the first pass comes a label for each patch: the words' similarities, refined by PAMR,
most frequent over the patch's pixels. Then S_ij is 1 for patches of one label, less where other labels lie between
them, and 0 for the rest; its rows are smoothed, and the logits L of the second pass become

    tau ((1 - lambda) L + lambda S)

"NACLIP + RCS + SFR" is ResCLIP. Features depend on the words.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.around_base import MethodAroundBase
from clearclip.methods.block_parts import BlockParts
from clearclip.methods.last_block import AttentionMethod
from clearclip.methods.method import METHODS, Context, Method, any_method, option
from clearclip.methods.rcs import RCS
from clearclip.utils.errors import UserError
from clearclip.utils.validators import of_type
from clearclip.windows import PAMR, ImageContext, Readout, ScoreMap, WindowGrid

LOGIT_SCALE = 40.0  # before the softmax over words, whatever the model's own


def with_logits(name: str, value: Any) -> Method:
    """A check: a method whose attention is a softmax of logits, or its description."""
    method = any_method(name, value)
    # RCS mixes another method's attention, to whose logits SFR adds.
    attention = method.base if isinstance(method, RCS) else method
    if not (isinstance(attention, AttentionMethod) and attention.has_logits):
        raise UserError(f"{name} must be one attention with logits of the last block, which {method.label} has not")
    return method


@METHODS.register_module()
@dataclass(frozen=True)
class SFR(MethodAroundBase):
    """SFR around another method: "NACLIP + RCS + SFR", "ClearCLIP + SFR". The defaults are ResCLIP's for ADE20K.

    Args:
        base: the method whose logits are changed: a name, a dict or a method, as for ``build_method``.
        threshold: pixels whose largest probability is below get the label of the first word.
        tau: factor of the changed logits.
        lambda_s: share of S in them, 0 to 1.
        sigma: of the smoothing of S along the flattened patches.
        path: whether labels between two patches count.
        pamr: whether PAMR refines the first pass; most of what SFR costs.

    Raises:
        UserError: a base without logits, or a value that cannot be meant.
    """

    base: Method = option("NACLIP + RCS", with_logits)
    threshold: float = option(0.25, of_type(int, float, low=0, high=1))
    tau: float = option(2.1, of_type(int, float, low=0, high=100))
    lambda_s: float = option(0.7, of_type(int, float, low=0, high=1))
    sigma: float = option(5.0, of_type(int, float, low=1e-3, high=1000))
    path: bool = option(True, of_type(bool))
    pamr: bool = option(True, of_type(bool))

    needs = ("text", "image")

    @property
    def needs_same_tokens(self) -> bool:
        return self.base.needs_same_tokens

    def required_blocks(self, blocks: int) -> Collection[int]:
        return self.base.required_blocks(blocks)

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor, context: Context) -> Tensor:
        """Tokens before the last block to tokens after it: (B, P+N, D) to (B, P+N, D)."""
        first = context.num_prefix_tokens
        first_pass = self.base(blocks, x, context)[:, first:]
        labels = self.patch_labels(first_pass, context)
        matrix = feedback_matrix(labels, self.sigma, self.path)
        # In fp16, whatever the model's precision, as in the release.
        matrix = self.lambda_s * (matrix / matrix.amax(dim=(1, 2), keepdim=True)).half()
        # Nothing is added to the logits of the tokens before the patches, which have no labels.
        bias = F.pad(self.tau * matrix.float(), (first, 0, first, 0))[:, None]
        factor = self.tau * (1 - self.lambda_s)
        return self.base(blocks, x, replace(context, feedback=(factor, bias)))

    def patch_labels(self, patches: Tensor, context: Context) -> Tensor:
        """The word of each patch, for patch tokens after the last block: (B, N, D) to (B, rows, columns) int64."""
        rows, columns = context.grid_size
        height = context.image.shape[-2] // rows
        width = context.image.shape[-1] // columns
        # What is beyond the last full patch has no patch whose label could be read.
        size = (rows * height, columns * width)
        words = torch.arange(len(context.text), device=patches.device)
        embeddings = F.normalize(context.embed(patches).float(), dim=-1)
        similarities = (embeddings @ context.text.T).unflatten(1, context.grid_size)
        grid = WindowGrid.of(size, 0, 0, (height, width))
        readout = Readout(LOGIT_SCALE, self.threshold)
        labels = []
        # One window at a time: PAMR holds the colours of all neighbours of a window's pixels.
        for similarity, window in zip(similarities, context.image, strict=True):
            scores = ScoreMap(similarity, grid)
            if self.pamr:
                image = window[:, : size[0], : size[1]]
                scores = PAMR()(scores, ImageContext(image, size, context.text, words))
            pixels = readout.labels(scores, size, words)
            labels.append(most_frequent(pixels, context.grid_size, len(words)))
        return torch.stack(labels)


def most_frequent(pixels: Tensor, grid: tuple[int, int], words: int) -> Tensor:
    """The word that most pixels of each patch have, the first of equals.

    Args:
        pixels: the words of pixels, (height, width) int64; both are multiples of the grid's.
        grid: rows and columns of patches.
        words: how many words there are.

    Returns:
        (rows, columns) int64
    """
    rows, columns = grid
    by_patch = pixels.unflatten(1, (columns, -1)).unflatten(0, (rows, -1)).transpose(1, 2).flatten(2)
    counts = pixels.new_zeros(rows, columns, words)
    return counts.scatter_add_(2, by_patch, torch.ones_like(by_patch)).argmax(dim=-1)


def feedback_matrix(labels: Tensor, sigma: float, path: bool) -> Tensor:
    """S of patches with these labels, (B, rows, columns) int64 to (B, N, N) float32, rows summing to 1."""
    grid = tuple(labels.shape[1:])
    flat_labels = labels.flatten(1)
    has_same_label = flat_labels[:, :, None] == flat_labels[:, None]
    matrix = has_same_label.float()
    if path:
        distance = _distance(grid, labels.device)
        is_connected = has_same_label & _paths_of_one_label(flat_labels, grid)
        decay = torch.exp(-distance / max(max(grid) - 1, 1))
        matrix = torch.where(is_connected, matrix, matrix * decay)
    matrix = matrix @ _smoothing(flat_labels.shape[1], sigma, labels.device)
    return matrix / (matrix.sum(dim=-1, keepdim=True) + 1e-8)


def _paths_of_one_label(flat_labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Whether all patches on the line from i to j have the label of i, (B, N, N) bool, for labels (B, N)."""
    device, steps = flat_labels.device, max(grid) - 1
    distance = _distance(grid, device)
    is_connected = torch.ones(*flat_labels.shape, flat_labels.shape[1], dtype=torch.bool, device=device)
    rows_on_lines = _points_on_lines(grid[0], steps, device)
    columns_on_lines = _points_on_lines(grid[1], steps, device)
    for step in range(1, steps + 1):
        rows, columns = rows_on_lines[step], columns_on_lines[step]
        cells = rows[:, None, :, None] * grid[1] + columns[None, :, None, :]
        labels_there = flat_labels[:, cells.flatten()].view_as(is_connected)
        # Only the first of the steps are looked at, as many as the patches are apart.
        is_connected &= (labels_there == flat_labels[:, :, None]) | (distance < step)
    return is_connected


@lru_cache(maxsize=16)
def _distance(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Chebyshev distances of all pairs of patches, (N, N) int64."""
    rows, columns = torch.arange(grid[0]), torch.arange(grid[1])
    down = (rows[:, None] - rows).abs()
    across = (columns[:, None] - columns).abs()
    distances = torch.maximum(down[:, None, :, None], across[None, :, None, :])
    return distances.reshape(grid[0] * grid[1], -1).to(device)


@lru_cache(maxsize=16)
def _points_on_lines(length: int, steps: int, device: torch.device) -> Tensor:
    """Where the line from i to j is after each of 0 to ``steps`` steps, rounded half to even.

    Returns:
        (steps + 1, length, length) int64
    """
    # The release's linspace, not step / steps: the last digit decides which way a point between two cells is rounded.
    shares = torch.linspace(0, 1, steps + 1, dtype=torch.float32)[:, None, None]
    positions = torch.arange(length, dtype=torch.float32)
    # On the CPU, whose rounding is the same everywhere; all steps at once are one copy to a GPU, and kept there.
    return ((1 - shares) * positions[:, None] + shares * positions).round().long().to(device)


@lru_cache(maxsize=16)
def _smoothing(count: int, sigma: float, device: torch.device) -> Tensor:
    """A Gaussian along the flattened index, over row ends, with zeros outside: (N, N) float32."""
    half = min(count, int(6 * sigma + 1)) // 2
    kernel = torch.exp(-(torch.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    offset = torch.arange(count)[:, None] - torch.arange(count)
    weights = (offset.abs() <= half) * torch.exp(-(offset**2) / (2 * sigma**2))
    # By the whole kernel's sum, also at the ends, where a part of it lies outside.
    return (weights / kernel.sum()).to(device)

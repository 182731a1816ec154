"""Patches that differ from all others (SC-CLIP, arXiv 2411.15869), and their repair from their neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

QUANTILE = 0.95  # patches whose score is above it are outliers
LARGEST = 10  # outliers of SFP
TIE = 1e-5  # relative: scores closer than this are equal, as the two largest are where K is all others


def outlier_scores(patches: Tensor, neighbours: int) -> Tensor:
    """A simplified local outlier factor, (B, N, D) to (B, N) float32: how far a patch lies from its K nearest others,
    compared with how far these lie from theirs. K is ``neighbours``, at most N - 1.
    """
    # |a|² + |b|² - 2 ab of near patches is the small difference of large numbers, of which fp32 leaves little.
    has_float64 = patches.device.type != "mps"
    patches = patches.to(torch.float64 if has_float64 else torch.float32)
    size = patches.square().sum(dim=-1)
    distance = size[:, :, None] + size[:, None] - 2 * patches @ patches.mT
    is_same_patch = torch.eye(patches.shape[1], dtype=torch.bool, device=patches.device)
    distance.masked_fill_(is_same_patch, torch.inf)
    count = min(neighbours, patches.shape[1] - 1)
    nearest_distances, nearest = distance.float().topk(count, dim=-1, largest=False)
    # Equal patches are apart by rounding only, which must not be divided by.
    reach = nearest_distances[..., -1].maximum(1e-12 * size.mean(dim=1, keepdim=True).float())
    reach_of_neighbours = reach[:, None].expand(-1, reach.shape[1], -1).gather(2, nearest)
    return (reach[..., None] / reach_of_neighbours).mean(dim=-1)


def outliers(patches: Tensor, neighbours: int) -> Tensor:
    """Patches with scores above the 95 % quantile (linear interpolation): (B, N, D) to (B, N) bool."""
    # A single patch has no others to differ from.
    if patches.shape[1] == 1:
        return patches.new_zeros(patches.shape[:2], dtype=torch.bool)
    scores = outlier_scores(patches, neighbours)
    return scores > scores.quantile(QUANTILE, dim=1, keepdim=True) * (1 + TIE)


def largest(scores: Tensor, count: int = LARGEST) -> Tensor:
    """The patches of largest score, (B, N) to (B, N) bool: as many as ``count``, none of score -inf."""
    values, index = scores.topk(min(count, scores.shape[1]), dim=1)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, index, values > -torch.inf)


def repair(patches: Tensor, outlier: Tensor, grid: tuple[int, int]) -> Tensor:
    """Outliers (B, N) become the mean of those of their 8 neighbours on the grid that are none, or stay where there
    are none: (B, N, D) to (B, N, D) float32.
    """
    is_usual = ~outlier[..., None]
    # One more channel counts the usual patches, so that one pooling gives their sum and their number.
    channels = torch.cat([patches.float() * is_usual, is_usual.float()], dim=-1)
    channels = channels.unflatten(1, grid).permute(0, 3, 1, 2)
    mean = F.avg_pool2d(channels, 3, stride=1, padding=1).permute(0, 2, 3, 1).flatten(1, 2)
    share = mean[..., -1:]
    return torch.where(is_usual | (share == 0), patches.float(), mean[..., :-1] / share)

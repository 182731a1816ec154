"""Label propagation over a graph, as LPOSS and LPOSS+ do it: (I - alpha S) X = Y by a few steps of conjugate gradients.

S is the graph's matrix of weights W with its rows and columns divided by the square roots of the nodes' degrees. The
steps do not converge, and how many there are is part of the method.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

SIMILARITY_BYTES = 64 << 20  # of nodes × nodes that are held at a time
RESIDUAL_TOLERANCE = 1e-6  # of the residual's norm: words that have reached it change no more


def propagate(neighbour_sums: Callable[[Tensor], Tensor], y: Tensor, alpha: float, steps: int) -> Tensor:
    """X after so many steps from 0, each word apart.

    Args:
        neighbour_sums: S x for x of the shape of ``y``.
        y: what each node says of each word, (…, words), the nodes in any number of dimensions.
        alpha: share of the neighbours, below 1.
        steps: of conjugate gradients, at most.

    Returns:
        (…, words)
    """
    # Sums are over nodes alone, so that every word has steps of its own length.
    over_nodes = tuple(range(y.dim() - 1))
    x = torch.zeros_like(y)
    residual = y.clone()
    direction = y.clone()
    squared_norm = residual.square().sum(dim=over_nodes)
    converged_norm = RESIDUAL_TOLERANCE**2 * squared_norm
    for _ in range(steps):
        # A word that has converged would divide 0 by 0.
        is_active = squared_norm > converged_norm
        image = direction - alpha * neighbour_sums(direction)
        step = torch.where(is_active, squared_norm / (direction * image).sum(dim=over_nodes), 0)
        x.addcmul_(direction, step)
        residual.addcmul_(image, -step)
        previous_norm = squared_norm
        squared_norm = residual.square().sum(dim=over_nodes)
        direction = residual + torch.where(is_active, squared_norm / previous_norm, 0) * direction
    return x


def inverse_roots(degrees: Tensor) -> Tensor:
    """1 / sqrt of the nodes' degrees; nodes without neighbours count as of degree 1."""
    return torch.where(degrees > 0, degrees, 1).rsqrt()


def neighbour_graph(nodes: Tensor, positions: Tensor, neighbours: int, gamma: float, sigma: float) -> Tensor:
    """S of a graph in which each node has weights to its nearest in feature space; both directions are added up.

    The weight of i and j is max(0, c_ij)^gamma exp(-sigma |p_i - p_j|).

    Args:
        nodes: features (n, C) of length 1; their products are c.
        positions: p, (n, 2) in pixels.
        neighbours: how many a node has at most, itself among them, to which its weight is 0.
        gamma, sigma: see above.

    Returns:
        (n, n), sparse, float64 (float32 on MPS)
    """
    count = len(nodes)
    row_parts, column_parts, weight_parts = [], [], []
    # The whole matrix of similarities would take 4 GB for an image of 32,000 patches.
    rows_at_once = max(1, SIMILARITY_BYTES // (4 * count))
    for rows in torch.arange(count, device=nodes.device).split(rows_at_once):
        similarity, nearest = (nodes[rows] @ nodes.T).topk(min(neighbours, count), dim=1)
        distance = (positions[rows, None] - positions[nearest]).norm(dim=2)
        weight = similarity.clamp_min(0) ** gamma * torch.exp(-sigma * distance)
        weight_parts.append(weight.masked_fill(nearest == rows[:, None], 0).flatten())
        row_parts.append(rows[:, None].expand_as(nearest).flatten())
        column_parts.append(nearest.flatten())
    row = torch.cat(row_parts)
    column = torch.cat(column_parts)
    has_float64 = nodes.device.type != "mps"
    weights = torch.cat(weight_parts).to(torch.float64 if has_float64 else torch.float32)
    return _normalized_graph(row, column, weights, count)


def _normalized_graph(row: Tensor, column: Tensor, weights: Tensor, count: int) -> Tensor:
    """D^(-1/2) (W + Wᵀ) D^(-1/2) of the weights W of pairs of nodes, (count, count), sparse."""
    degrees = torch.zeros(count, dtype=weights.dtype, device=weights.device)
    scale = inverse_roots(degrees.index_add(0, row, weights).index_add(0, column, weights))
    weights = scale[row] * weights * scale[column]
    in_both_directions = torch.stack([torch.cat([row, column]), torch.cat([column, row])])
    weights_twice = torch.cat([weights, weights])
    graph = torch.sparse_coo_tensor(in_both_directions, weights_twice, (count, count), check_invariants=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says that compressed rows are new
        return graph.coalesce().to_sparse_csr()

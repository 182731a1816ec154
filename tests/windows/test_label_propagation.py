"""Label propagation against conjugate gradients and a graph written out with loops."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F

from clearclip.windows import label_propagation
from clearclip.windows.label_propagation import neighbour_graph, propagate


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_steps_are_those_of_conjugate_gradients(steps):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(12, 12, generator=generator, dtype=torch.float64)
    weights = (weights + weights.T).numpy()
    y = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    scale = 1 / np.sqrt(weights.sum(axis=1))
    normalized = torch.from_numpy(scale[:, None] * weights * scale)
    got = propagate(lambda x: normalized @ x, y, 0.9, steps)
    np.testing.assert_allclose(got.numpy(), reference.propagated(weights, y.numpy(), 0.9, steps))


def test_many_steps_solve_the_system():
    """(I - alpha S) X = Y, also for a word that nothing is said of and one that has converged long before."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(9, 9, generator=generator, dtype=torch.float64)
    weights = (weights + weights.T) / 20
    y = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    y[:, 1] = 0
    x = propagate(lambda x: weights @ x, y, 0.5, 200)
    exact = np.linalg.solve(np.eye(9) - 0.5 * weights.numpy(), y.numpy())
    np.testing.assert_allclose(x.numpy(), exact, atol=1e-5)
    assert (x[:, 1] == 0).all()


@pytest.mark.parametrize("bytes_at_once", [1, 64 << 20])
@pytest.mark.parametrize("neighbours", [1, 3, 50])
def test_the_graph_in_loops(neighbours, bytes_at_once, monkeypatch):
    monkeypatch.setattr(label_propagation, "SIMILARITY_BYTES", bytes_at_once)
    generator = torch.Generator().manual_seed(2)
    nodes = F.normalize(torch.randn(11, 5, generator=generator), dim=-1)
    positions = torch.randint(0, 60, (11, 2), generator=generator).float()
    weights = np.zeros((11, 11))
    for i in range(11):
        cosines = [float(nodes[i] @ nodes[j]) for j in range(11)]
        for j in sorted(range(11), key=lambda j: -cosines[j])[:neighbours]:
            if j != i:
                distance = float((positions[i] - positions[j]).norm())
                weights[i, j] = max(0, cosines[j]) ** 2.0 * np.exp(-0.02 * distance)
    weights += weights.T
    degrees = weights.sum(axis=1)
    scale = 1 / np.sqrt(np.where(degrees > 0, degrees, 1))
    got = neighbour_graph(nodes, positions, neighbours, 2.0, 0.02).to_dense().numpy()
    np.testing.assert_allclose(got, scale[:, None] * weights * scale, atol=1e-6)

"""Weights in half precision."""

from __future__ import annotations

import torch

from clearclip.backbones.casting import cast


def test_cast_keeps_the_exact_values_of_layer_norms():
    tower = torch.nn.Sequential(torch.nn.LayerNorm(4, eps=1e-3), torch.nn.Linear(4, 4))
    weight = torch.tensor([0.1, 0.2, 1 / 3, 1.7])
    tower[0].weight.data.copy_(weight)
    cast(tower, "fp16")
    assert tower[0].weight.equal(weight)
    assert tower[0].eps == 1e-3
    assert tower(torch.ones(1, 4).half()).dtype == torch.float16

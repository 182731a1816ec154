"""A seed for a block: the same numbers as by each library's own seed, and nothing left behind."""

from __future__ import annotations

import random

import numpy as np
import torch

from clearclip.utils.seeds import seeded


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_numbers_are_those_of_the_libraries_own_seeds():
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    expected = draws()
    with seeded(7):
        assert draws() == expected
        with seeded(2**40):
            assert draws() != expected
    with seeded(7):
        assert draws() == expected


def test_generators_are_left_as_they_were():
    torch.manual_seed(1)
    following = float(torch.rand(()))
    torch.manual_seed(1)
    python_state = random.getstate()
    with seeded(7):
        draws()
    assert float(torch.rand(())) == following
    assert random.getstate() == python_state


def test_no_seed_is_noted_for_gpus_that_are_not_used():
    """PyTorch would keep a stack for each of thousands of images."""
    noted = len(torch.cuda._queued_calls)
    for seed in range(3):
        with seeded(seed):
            pass
    assert len(torch.cuda._queued_calls) == noted

"""One seed for each image, so that what is random is the same in every run, on every process and after a resumption."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's generators for the block, and leave them as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            random.seed(seed)
            np.random.seed(seed % 2**32)  # NumPy takes 32 bits only
            _seed_pytorch(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _seed_pytorch(seed: int) -> None:
    """Seed the CPU's generator and those of GPUs that are in use.

    ``torch.manual_seed`` notes a seed for GPUs that nothing has used yet, each time with the whole stack: that takes
    milliseconds for every image, and is kept.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)

"""TF32, a setting of the whole process, in several threads."""

from __future__ import annotations

import torch

from clearclip.utils.devices import without_tf32


def test_tf32_stays_off_until_the_last_block_ends():
    """Two blocks that overlap, as two threads' do: the second one ends after the first."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        first, second = without_tf32(), without_tf32()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert matmul.fp32_precision == "ieee"
        second.__exit__(None, None, None)
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before

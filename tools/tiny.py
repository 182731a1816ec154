"""A tiny CLIP whose weights follow from their names, and images that follow from their sizes.

Anyone can make both again, for any implementation, without a file being passed on: this is how the authors' release is
compared with this repository (tests/release, tools/compare_with_release.py).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: OpenCLIP's configuration of the tiny model: patches of 16, a grid of 4 × 4, eight blocks.
TINY = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 128, "head_width": 32, "layers": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}


def named_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights drawn from each parameter's name: attention is far from uniform with them, and the residual matters.

    Args:
        state: an OpenCLIP model's ``state_dict``, of which names, shapes and dtypes count.

    Returns:
        A ``state_dict`` of the same names. Integer buffers and ``attn_mask`` are kept.
    """
    return {name: _named_weight(name, old) for name, old in state.items()}


def _named_weight(name: str, old: Tensor) -> Tensor:
    if not old.is_floating_point() or name.endswith("attn_mask"):
        return old
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(old.shape)).astype(np.float32)
    if "ln_" in name and name.endswith("weight"):
        drawn = 1 + 0.1 * drawn
    elif name.endswith("bias"):
        drawn = 0.05 * drawn
    elif name == "logit_scale":
        drawn = np.full_like(drawn, 4)
    elif "embedding" in name:
        drawn = 0.3 * drawn
    elif drawn.ndim >= 2:
        inputs = math.prod(drawn.shape[1:]) if name.endswith("weight") else drawn.shape[0]
        drawn = drawn * np.float32(1.5 / math.sqrt(inputs))
    return torch.from_numpy(np.asarray(drawn, dtype=np.float32))


def sized_image(height: int, width: int) -> Tensor:
    """A normalised image, (3, height, width) float32, that follows from its size: smooth, with a little noise."""
    rng = np.random.default_rng(1000 * height + width)
    coarse = rng.standard_normal((3, height // 8 + 2, width // 8 + 2)).astype(np.float32)
    noise = rng.standard_normal((1, 3, height, width)).astype(np.float32)
    smooth = F.interpolate(torch.from_numpy(coarse)[None], size=(height, width), mode="bilinear", align_corners=False)
    return (smooth + 0.1 * torch.from_numpy(noise))[0]

"""Lab colours (CIE 1976, white D65) of RGB images."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

#: From linear RGB to XYZ, and the white point.
XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)


@lru_cache(maxsize=16)
def constant(values: tuple, device: torch.device) -> Tensor:
    """Numbers as a float32 tensor, made once for a device: a GPU would be waited for each time that they are copied."""
    return torch.tensor(values, device=device)


def lab(rgb: Tensor) -> Tensor:
    """L (0 to 100), a and b (about -128 to 128) of 0..1 sRGB: (3, …) float32 to the same."""
    # The branch that `where` does not take must be finite, too, hence both clamps.
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp_min(0) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("xc,c...->x...", constant(XYZ, rgb.device), linear)
    white = constant(WHITE, rgb.device).view(3, *[1] * (rgb.dim() - 1))
    ratio = xyz / white
    x, y, z = torch.where(ratio > 0.008856, ratio.clamp_min(0.008856) ** (1 / 3), 7.787 * ratio + 4 / 29)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])

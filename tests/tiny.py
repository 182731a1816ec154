"""The tiny CLIP whose outputs the authors' releases were recorded on: weights and images anyone can make again.

Every weight is drawn from a generator that is seeded with the parameter's name, every image from one that is seeded
with its size.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

CONFIG = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 8, "width": 128, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Standard normal values, drawn in float64 and rounded to float32."""
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32).reshape(shape))


def weight(name: str, shape: torch.Size) -> Tensor:
    """The value of one parameter, float32."""
    a = draw(np.random.default_rng(zlib.crc32(name.encode())), tuple(shape))
    if "ln_" in name and name.endswith("weight"):
        return 1 + 0.1 * a
    if name.endswith("bias"):
        return 0.05 * a
    if name == "logit_scale":
        return torch.tensor(4.0)
    if "embedding" in name:
        return 0.3 * a
    if len(shape) >= 2:
        return a * (1.5 / math.sqrt(math.prod(shape[1:]) if name.endswith("weight") else shape[0]))
    return a


def make_folder(folder: Path, layers: int = 8) -> str:
    """Write the model with so many image layers into ``folder``; its name for ``open_clip.create_model``."""
    config = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "layers": layers}}
    model = open_clip.model.CLIP(**config)
    state = {name: weight(name, value.shape) for name, value in model.named_parameters()}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.save({**model.state_dict(), **state}, folder / "open_clip_pytorch_model.bin")
    return f"local-dir:{folder}"


def image(height: int, width: int) -> Tensor:
    """The normalised image of that size, (3, height, width) float32."""
    rng = np.random.default_rng(1000 * height + width)
    low = draw(rng, (3, height // 8 + 2, width // 8 + 2))
    noise = draw(rng, (1, 3, height, width))
    smooth = F.interpolate(low[None], size=(height, width), mode="bilinear", align_corners=False)
    return (smooth + 0.1 * noise)[0]

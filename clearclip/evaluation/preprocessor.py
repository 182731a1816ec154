"""From the pipeline's images to the segmentor's: normalised on the device, each at its own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmseg.registry import MODELS


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Upload as bytes, turn to RGB and normalise. Unlike MMSegmentation's, it takes images of different sizes.

    Args:
        mean, std: of 0..255 RGB.
        bgr_to_rgb: the pipeline's images are BGR, as OpenCV reads them.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], bgr_to_rgb: bool = True):
        super().__init__(non_blocking=True)
        self.bgr_to_rgb = bgr_to_rgb
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """``inputs``: (3, H, W) uint8 images, a list or a batch; become a list of (3, H, W) float32."""
        data = self.cast_data(data)
        images = [image.flip(0) if self.bgr_to_rgb else image for image in data["inputs"]]
        data["inputs"] = [(image.float() - self.mean) / self.std for image in images]
        return data

"""From the pipeline's images to the segmentor's: normalised on the device, each at its own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS


@MODELS.register_module()
class ImagePreprocessor(SegDataPreProcessor):
    """MMSegmentation's, image by image: those of a batch may differ in size.

    Args:
        mean, std: of 0..255 RGB.
        bgr_to_rgb: the pipeline's images are BGR, as OpenCV reads them.
        **options: see ``SegDataPreProcessor``.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], bgr_to_rgb: bool = True, **options: Any):
        super().__init__(mean, std, bgr_to_rgb=bgr_to_rgb, **options)
        self._non_blocking = True

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """``inputs``: (3, H, W) images, a list or a batch; become a list of (3, H, W) float32."""
        samples = data.get("data_samples") or [None] * len(data["inputs"])
        found = [
            super(ImagePreprocessor, self).forward({"inputs": [image], "data_samples": sample and [sample]})
            for image, sample in zip(data["inputs"], samples, strict=True)
        ]
        inputs = [one["inputs"][0] for one in found]
        return {"inputs": inputs, "data_samples": [one["data_samples"][0] for one in found] if samples[0] else None}

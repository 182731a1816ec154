"""What :meth:`clearclip.ClearCLIP.segment` returns."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from clearclip.text import TextFeatures
from clearclip.windows import WindowGrid, class_probabilities, label_map


class Segmentation:
    """An image and its labels.

    Attributes:
        image: (H, W, 3) uint8 RGB, at its original size.
        labels: (H, W) uint8 (uint16 beyond 256 classes): the index of each pixel's class.
        classes: the classes' names, in label order.
    """

    def __init__(
        self,
        image: np.ndarray,
        similarity: Tensor,
        grid: WindowGrid,
        text: TextFeatures,
        *,
        logit_scale: float,
        prob_thd: float,
    ):
        self.image = image
        self.classes = text.classes.names
        self._similarity = similarity
        self._grid = grid
        self._text = text
        self._logit_scale = logit_scale
        size = image.shape[:2]
        labels = label_map(similarity, grid, size, text.word_to_class, logit_scale, prob_thd)
        self.labels = labels.cpu().numpy().astype(np.uint8 if len(self.classes) <= 256 else np.uint16)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(classes, H, W) float32, computed when first asked for."""
        text, size = self._text, self.image.shape[:2]
        return (
            class_probabilities(self._similarity, self._grid, size, text.word_to_class, self._logit_scale).cpu().numpy()
        )

    @cached_property
    def similarities(self) -> np.ndarray:
        """(classes, h, w) float32: each class's best cosine similarity per patch, windows side by side."""
        by_word = self._similarity.permute(2, 0, 1).cpu().numpy()
        starts = np.flatnonzero(np.diff(self._text.word_to_class.cpu().numpy(), prepend=-1))
        return np.maximum.reduceat(by_word, starts, axis=0)

    @property
    def shares(self) -> dict[str, float]:
        """The share of the image that each class covers, 0 to 1, in label order."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return dict(zip(self.classes, (counts / self.labels.size).tolist(), strict=True))

    def overlay(self, opacity: float = 0.55) -> Image.Image:
        """The image with its classes painted over it, at the original size."""
        from clearclip.pictures import overlay

        return overlay(self.image, self.labels, len(self.classes), opacity)

    def picture(self) -> Image.Image:
        """Photo, overlay and map side by side, with a legend that names each colour and its share."""
        from clearclip.pictures import result_picture

        return result_picture(self)

    def save(self, path: str | Path) -> Path:
        """Write the picture to ``path`` (its suffix says the format), whole or not at all."""
        from clearclip.pictures import save_image

        return save_image(self.picture(), path)

    def _repr_png_(self) -> bytes:
        from clearclip.pictures import png_bytes

        return png_bytes(self.picture())

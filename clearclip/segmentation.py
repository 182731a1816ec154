"""What :meth:`clearclip.ClearCLIP.segment` returns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from clearclip.errors import UserError
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
        guide: Tensor | None = None,
    ):
        self.image = image
        self.classes = text.classes.names
        self._similarity = similarity.cpu()
        self._grid = grid
        self._text = text.to(self._similarity.device)
        self._logit_scale = logit_scale
        self._guide = None if guide is None else guide.cpu()
        self._colours: Sequence[Sequence[int]] | np.ndarray | None = None
        size = image.shape[:2]
        labels = label_map(similarity, grid, size, text.word_to_class, logit_scale, prob_thd, guide)
        self.labels = labels.cpu().numpy().astype(np.uint8 if len(self.classes) <= 256 else np.uint16)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(classes, H, W) float32, computed when first asked for."""
        arguments = (self._similarity, self._grid, self.image.shape[:2], self._text.word_to_class, self._logit_scale)
        return class_probabilities(*arguments, self._guide).cpu().numpy()

    @property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """The words of each class, in label order."""
        return self._text.classes.classes

    @property
    def colours(self) -> np.ndarray:
        """The colour of each class in the pictures, (classes, 3) uint8 RGB; set it to choose others."""
        from clearclip.pictures import class_palette

        return class_palette(self.classes, self._colours)

    @colours.setter
    def colours(self, colours: Sequence[Sequence[int]] | np.ndarray | None) -> None:
        self._colours = colours

    @cached_property
    def class_pixels(self) -> np.ndarray:
        """How many pixels each class has, (classes,) int64."""
        return np.bincount(self.labels.ravel(), minlength=len(self.classes))

    @property
    def shares(self) -> dict[str, float]:
        """The share of the image that each class covers, 0 to 1, in label order."""
        return dict(zip(self.classes, (self.class_pixels / self.labels.size).tolist(), strict=True))

    @property
    def similarity_range(self) -> tuple[float, float]:
        """The scale of :meth:`heat_maps`: from the smallest similarity, or 0 if that is negative, to the largest."""
        low, high = float(self._similarity.min()), float(self._similarity.max())
        return (low, high) if high <= 0 else (max(0.0, low), high)

    def similarity_map(self, word: int | str, size: tuple[int, int] | None = None) -> np.ndarray:
        """Cosine similarity of one word with every place of the image.

        Args:
            word: one of :attr:`words`, or its index among all of them.
            size: height and width of the map; default those of the image.

        Returns:
            (height, width) float32: patches upsampled to windows, windows averaged where they overlap.

        Raises:
            UserError: the word is none of those that were asked for.
        """
        index = self._index(word)
        height, width = size or self.image.shape[:2]
        grid = self._similarity[..., index]
        rows = self._grid.rows.weights(height, grid.device)
        columns = self._grid.columns.weights(width, grid.device)
        return (rows @ grid @ columns.T).cpu().numpy()

    def _index(self, word: int | str) -> int:
        words = self._text.classes.words
        if isinstance(word, str) and word in words:
            return words.index(word)
        if isinstance(word, str) or not -len(words) <= word < len(words):
            raise UserError(f"{word!r} is none of this result's words ({', '.join(words[:20])})")
        return int(word)

    def overlay(self, opacity: float = 0.55) -> Image.Image:
        """The image with its classes painted over it, at the original size."""
        from clearclip.pictures import overlay

        return overlay(self.image, self.labels, len(self.classes), opacity, self.colours)

    def picture(self) -> Image.Image:
        """Photo, overlay and map side by side, with a legend that names each colour and its share."""
        from clearclip.pictures import result_picture

        return result_picture(self)

    def heat_maps(self) -> Image.Image:
        """A similarity map for each word, all on one scale."""
        from clearclip.pictures import heat_picture

        return heat_picture(self)

    def save(self, path: str | Path) -> Path:
        """Write the picture to ``path`` (its suffix says the format), whole or not at all."""
        from clearclip.pictures import save_image

        return save_image(self.picture(), path)

    def save_labels(self, path: str | Path) -> Path:
        """Write the labels as a PNG whose grey values are the class ids (8 bits, 16 beyond 256 classes)."""
        from clearclip.pictures import save_image

        return save_image(self.labels, path)

    def _repr_png_(self) -> bytes:
        from clearclip.pictures import png_bytes

        return png_bytes(self.picture())

    def __repr__(self) -> str:
        height, width = self.labels.shape
        shares = sorted(self.shares.items(), key=lambda item: -item[1])[:3]
        found = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares)
        more = ", …" if len(self.classes) > 3 else ""
        return f"Segmentation({width} × {height} pixels, {len(self.classes)} classes: {found}{more})"

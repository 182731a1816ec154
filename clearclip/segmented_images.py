"""The images that :meth:`clearclip.ClearCLIP.segment` is given, read a few at a time, and their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from clearclip.inference import WindowedInference
from clearclip.methods import Method
from clearclip.rasters.georeference import georeference_of
from clearclip.segmentation import Segmentation
from clearclip.text import TextFeatures
from clearclip.utils.errors import UserError
from clearclip.utils.image_inputs import ImageFailure, image_name, is_one_image, read_batch
from clearclip.utils.images import resize_to_protocol
from clearclip.windows import Readout, ScoreMap

#: Images whose scores are held at a time.
IMAGES_PER_BATCH = 8


class SegmentedImages(Iterator[Any]):
    """Results of images by one method or several, one image after the other.

    An image that cannot be read raises its error in its turn, and the next call goes on with the image after it. What
    an iterator over images raises itself comes after the results before it, and nothing follows.

    Args:
        model: computes the scores; its settings say to which size images are resized.
        images: an image, a sequence of images, or an iterator over them, which is read as the results are.
        text: the features of the classes' words.
        readout: how scores become labels.
        methods: one, or several by the names that their results get.
        model_label: the name of the weights, for the results.
        on_error: "raise", or "skip": an image that cannot be read is an
            :class:`~clearclip.utils.image_inputs.ImageFailure` in the place of its result.

    Raises:
        UserError: another value of ``on_error``.
    """

    def __init__(
        self,
        model: WindowedInference,
        images: Any,
        text: TextFeatures,
        readout: Readout,
        methods: Method | Mapping[str, Method],
        model_label: str,
        on_error: str,
    ):
        if on_error not in ("raise", "skip"):
            raise UserError(f'on_error must be "raise" or "skip", not {on_error!r}')
        sources: Iterable[Any] = [images] if is_one_image(images) else images
        self._model = model
        self._images: Iterator[Any] = iter(sources)
        self._text = text
        self._readout = readout
        self._has_names = isinstance(methods, Mapping)
        # A single method goes the same way, by a name that nobody sees.
        self._method_by_name: Mapping[str, Method] = {"": methods} if isinstance(methods, Method) else methods
        self._model_label = model_label
        self._skips_errors = on_error == "skip"
        # Labels are made in an image's turn: those of eight large images would take more memory than their scores.
        self._scored_images: deque[tuple[Any, Any, Sequence[ScoreMap]]] = deque()
        self._error_of_iterator: Exception | None = None

    def __next__(self) -> Any:
        """The next image's result, or its results by the methods' names.

        Raises:
            UserError: the image cannot be read, or its features are not finite.
            StopIteration: there are no more images.
        """
        if not self._scored_images:
            self._score_next_images()
        source, picture, maps = self._scored_images.popleft()
        if isinstance(picture, ImageFailure):
            if self._skips_errors:
                return picture
            raise picture.error
        georeference = georeference_of(source)
        result_by_name = {}
        for (name, method), scores in zip(self._method_by_name.items(), maps, strict=True):
            result = Segmentation(picture, scores, self._text, self._readout, self._model_label, method.label)
            result.georeference = georeference
            result.image_name = image_name(source)
            result_by_name[name] = result
        if self._has_names:
            return result_by_name
        return result_by_name[""]

    def _score_next_images(self) -> None:
        """Read the next images and compute their scores by all methods.

        Raises:
            StopIteration: there are no more images.
        """
        batch: list[tuple[Any, Any]] = []
        if self._error_of_iterator is None:
            batch, self._error_of_iterator = read_batch(self._images, IMAGES_PER_BATCH)
        # From here on nothing is read again after an error, whether of the iterator or of the model.
        images, self._images = self._images, iter(())
        if not batch:
            error, self._error_of_iterator = self._error_of_iterator, None
            raise error or StopIteration
        pictures = [picture for _, picture in batch if not isinstance(picture, ImageFailure)]
        methods = list(self._method_by_name.values())
        maps: Iterator[Sequence[ScoreMap]] = iter(())
        if pictures:
            sizes = [picture.shape[:2] for picture in pictures]
            maps = iter(self._model.score_maps(self._tensors(pictures), sizes, self._text, methods))
        for source, picture in batch:
            maps_of_image: Sequence[ScoreMap] = ()
            if not isinstance(picture, ImageFailure):
                maps_of_image = next(maps)
            self._scored_images.append((source, picture, maps_of_image))
        self._images = images

    def _tensors(self, pictures: Sequence[np.ndarray]) -> list[Tensor]:
        """Pictures, (H, W, 3) uint8 each, resized as the settings say and normalised."""
        settings = self._model.settings
        tensors = []
        for picture in pictures:
            resized = resize_to_protocol(picture, settings.short_side, settings.long_side)
            tensors.append(self._model.normalize(resized))
        return tensors

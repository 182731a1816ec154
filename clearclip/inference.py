"""From images to scores and labels, window by window.

    images → windows → features → scores of windows → score map of the image → post-processing → labels

Each arrow after the windows is one of the five stages that :mod:`clearclip.methods.method` describes.

:meth:`ClearCLIP.segment` asks for score maps and reads labels when their turn comes (:mod:`clearclip.segmented_images`
resizes the images before, :class:`~clearclip.Segmentation` holds the readout); evaluations ask for labels.

Several methods are computed in one pass: the blocks that they share run once. What happens to one batch of windows is
in :mod:`clearclip.window_encoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from clearclip.backbones import DenseEncoder
from clearclip.methods import Method
from clearclip.methods.result_checks import check_score_map
from clearclip.model_settings import ModelSettings
from clearclip.text import TextFeatures
from clearclip.utils.devices import without_tf32
from clearclip.utils.errors import UserError
from clearclip.window_encoder import WindowEncoder
from clearclip.windows import ImageContext, ScoreMap, WindowGrid, labels_by_image
from clearclip.windows.batches import EncodedWindows, stack_windows, window_batches

NOT_FINITE_FEATURES = (
    "features have NaN or infinite values: the weights or images are damaged, fp16 overflows, or a method of your own "
    "gives such"
)


class Prediction(NamedTuple):
    """What one method says of one image.

    Attributes:
        labels: (height, width) int64.
        probabilities: (classes, height, width) float32, or None where they were not asked for.
    """

    labels: Tensor
    probabilities: Tensor | None


class WindowedInference(WindowEncoder):
    """Scores and labels of images by a frozen image tower.

    Args:
        image_encoder: images to dense features.
        settings: method, windows, threshold and so on; may be replaced at any time.
        mean, std: normalisation of 0..255 RGB.
        precision: "fp32", "fp16" or "bf16": what the encoders compute in.
    """

    def __init__(
        self,
        image_encoder: DenseEncoder,
        settings: ModelSettings,
        mean: Sequence[float],
        std: Sequence[float],
        precision: str,
    ):
        super().__init__(image_encoder, mean, std, precision, settings.window_batch)
        self.settings = settings

    @torch.inference_mode()
    def predict(
        self,
        images: Sequence[Tensor],
        text: TextFeatures,
        sizes: Sequence[tuple[int, int]],
        keep_probabilities: bool = False,
        methods: Sequence[Method] | None = None,
        settings: ModelSettings | None = None,
    ) -> list[list[Prediction]]:
        """Labels (and class probabilities) of normalised images: all five stages.

        Args:
            images: each (3, H, W) as for :meth:`similarities`.
            text: what to compare with.
            sizes: height and width to which each result is resized (that of the original image).
            keep_probabilities: also return these.
            methods: how the last blocks are computed; None means the model's own method.
            settings: windows, threshold and so on; default: the model's own.

        Returns:
            For each image, for each method its labels and probabilities.

        Raises:
            UserError: features that are not finite (damaged weights, or fp16 overflow).
        """
        settings = settings or self.settings
        readout = settings.readout
        maps = self.score_maps(images, sizes, text, methods, settings)
        labels = labels_by_image(readout, maps, sizes, text.word_to_class)
        predictions: list[list[Prediction]] = []
        for size, maps_of_image, labels_of_image in zip(sizes, maps, labels, strict=True):
            predictions_of_image = []
            for scores, labels_of_method in zip(maps_of_image, labels_of_image, strict=True):
                # The only array of classes × height × width that there is, and only where it is asked for.
                probabilities = None
                if keep_probabilities:
                    probabilities = readout.probabilities(scores, size, text.word_to_class)
                predictions_of_image.append(Prediction(labels_of_method, probabilities))
            predictions.append(predictions_of_image)
        return predictions

    @torch.inference_mode()
    def predict_labels(
        self,
        images: Sequence[Tensor],
        text: TextFeatures,
        sizes: Sequence[tuple[int, int]],
        methods: Sequence[Method] | None = None,
        settings: ModelSettings | None = None,
        mark_invalid: bool = False,
    ) -> list[Tensor]:
        """Labels of normalised images, (methods, height, width) int64 each; arguments as for :meth:`predict`.

        Args:
            images, text, sizes, methods, settings: see there.
            mark_invalid: in place of raising, label every pixel of an image whose features are not finite
                :data:`~clearclip.windows.INVALID_LABEL`. Then nothing waits for a GPU.

        Raises:
            UserError: features that are not finite, unless they are marked.
        """
        settings = settings or self.settings
        maps = self.score_maps(images, sizes, text, methods, settings, check=not mark_invalid)
        return labels_by_image(settings.readout, maps, sizes, text.word_to_class, mark_invalid)

    def similarities(
        self,
        images: Sequence[Tensor],
        text: TextFeatures,
        methods: Sequence[Method] | None = None,
        settings: ModelSettings | None = None,
    ) -> list[list[ScoreMap]]:
        """Cosine similarity of every patch with every word, or what else the method has for scores: the stages up to
        the image's score map, without post-processing.

        Windows of all images that have the same size are encoded together, ``window_batch`` at a time; blocks that
        several methods share run once.

        Args:
            images: each (3, H, W), normalised, of any size, on the model's device.
            text: of :meth:`ClearCLIP.encode_text`.
            methods: how the last blocks are computed; None means the model's own method.
            settings: windows and so on; default: the model's own.

        Returns:
            For each image, for each method its score map.

        Raises:
            UserError: a feature is not finite, or a method that the model is too shallow for.
        """
        sizes = [tuple(image.shape[-2:]) for image in images]
        return self.score_maps(images, sizes, text, methods, settings, post_process=False)

    @torch.inference_mode()
    def score_maps(
        self,
        images: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        text: TextFeatures | Sequence[TextFeatures],
        methods: Sequence[Method] | None = None,
        settings: ModelSettings | None = None,
        post_process: bool = True,
        check: bool = True,
    ) -> list[list[ScoreMap]]:
        """All stages but the readout; arguments and result as for :meth:`similarities`.

        Args:
            images, methods, settings: see there.
            text: what to compare with; a sequence has the words for each of the ``methods``, among which a method may
                be more than once: its features are computed once where they do not depend on the words.
            sizes: height and width of the original images, which a post-processing may ask for.
            post_process: whether to do what the settings' ``post`` says.
            check: whether to raise for scores that are not finite.

        Returns:
            For each image, for each method its score map.

        Raises:
            UserError: a feature is not finite, a method that the model cannot compute, or memory for not even one
                window.
        """
        settings = settings or self.settings
        methods = methods or [settings.chosen_method]
        # A method that is there several times stays one object: the encoder computes features once per object.
        completed = {id(method): self.completed(method) for method in methods}
        methods = [completed[id(method)] for method in methods]
        texts = [text] * len(methods) if isinstance(text, TextFeatures) else text
        for method in completed.values():
            self.check(method)

        encoded: list[list[EncodedWindows]] = []
        for image in images:
            encoded.append([EncodedWindows(self._grid(image, method, settings)) for method in methods])
        for batch in window_batches(images, encoded):
            finished = 0
            while finished < len(batch.windows):
                # The number is asked for again each time: where memory ran out, it has become smaller.
                next_batch = batch.part(finished, self.windows_per_batch(batch, methods))
                with self.halve_when_out_of_memory(next_batch):
                    self.encode_and_score(next_batch, methods, texts, encoded)
                    finished += len(next_batch.windows)

        post = settings.chosen_post_processing if post_process else None
        contexts: list[list[ImageContext]] = []
        for image, size in zip(images, sizes, strict=True):
            contexts.append([self._image_context(image, size, words, settings) for words in texts])
        # Outside the loop: batches may hold windows of several images, and an image's windows lie in several batches.
        with without_tf32():
            maps = self._join(encoded, methods, contexts, post is not None)
            if check:
                _check_finite(maps)
            if post is not None:
                for contexts_of_image, maps_of_image in zip(contexts, maps, strict=True):
                    maps_of_image[:] = map(post, maps_of_image, contexts_of_image)
        return maps

    def _grid(self, image: Tensor, method: Method, settings: ModelSettings) -> WindowGrid:
        """Where the windows of an image lie for a method."""
        encoder = self.image_encoder
        return WindowGrid.of(
            tuple(image.shape[-2:]),
            settings.slide_crop,
            settings.slide_stride,
            encoder.patch_size,
            encoder.fixed_size,
            method.multiple,
            settings.whole_image_resize,
            method.incomplete_windows or settings.incomplete_windows,
        )

    def _join(
        self,
        encoded: Sequence[Sequence[EncodedWindows]],
        methods: Sequence[Method],
        contexts: Sequence[Sequence[ImageContext]],
        has_post_processing: bool,
    ) -> list[list[ScoreMap]]:
        """The score maps of images of which all windows are encoded; what was held of the windows is dropped."""
        maps = []
        # A GPU takes longer to be told of a small copy than to do it, so windows of all images are stacked at once.
        if self.device.type != "cpu":
            stack_windows(encoded)
        for windows_by_method, contexts_of_image in zip(encoded, contexts, strict=True):
            maps_of_image = []
            for method, windows, context in zip(methods, windows_by_method, contexts_of_image, strict=True):
                second_encoder = self.second_encoder(method)
                joining_context = replace(
                    context,
                    features={name: torch.stack(features) for name, features in windows.features.items()},
                    second_patch=None if second_encoder is None else second_encoder.patch_size,
                    has_post_processing=has_post_processing,
                )
                scores = windows.stacked
                if scores is None:
                    scores = torch.stack(windows.scores)
                score_map = method.join(scores, windows.grid, joining_context)
                check_score_map(method, score_map)
                maps_of_image.append(score_map)
                # At once: of a large image, what LPOSS keeps takes more memory than the map.
                windows.clear()
            maps.append(maps_of_image)
        return maps

    def _image_context(
        self, image: Tensor, size: tuple[int, int], text: TextFeatures, settings: ModelSettings
    ) -> ImageContext:
        """What is known of an image when its windows are joined."""
        return ImageContext(
            image,
            size,
            text.features,
            text.word_to_class,
            windows_joined_by=settings.windows_joined_by,
            logit_scale=settings.logit_scale,
            denormalize=self.denormalize,
        )


def _check_finite(maps: Sequence[Sequence[ScoreMap]]) -> None:
    """Raise a UserError for scores that are not finite: a pixel with such must never pass for label 0."""
    are_finite = []
    for maps_of_image in maps:
        are_finite += [scores.scores.isfinite().all() for scores in maps_of_image]
    # One question for all images: each makes the CPU wait for a GPU.
    if are_finite and not torch.stack(are_finite).all():
        raise UserError(NOT_FINITE_FEATURES)

"""From images to scores and labels, window by window: the stages of :class:`WindowedInference`, in their order.

    images → windows → features → scores of windows → score map of the image → post-processing → readout

Several methods are computed in one pass: the blocks that they share run once.
"""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from clearclip.backbones import DenseEncoder, SecondEncoder, load_second_encoder
from clearclip.methods import Context, GuideKey, Method
from clearclip.model_settings import ModelSettings
from clearclip.text import TextFeatures
from clearclip.utils.devices import is_out_of_memory, without_tf32
from clearclip.utils.errors import UserError
from clearclip.utils.open_clip_import import open_clip
from clearclip.windows import (
    INVALID_LABEL,
    ImageContext,
    Readout,
    ScoreMap,
    WindowGrid,
    can_be_batched,
    labels_of_images,
)
from clearclip.windows.batches import EncodedImage, WindowBatch, extend, stack_windows, window_batches

#: Patches that one encoder batch may hold by default: 4 windows of 448 pixels at patch 16 on CPU, 96 on GPU.
TOKENS_PER_BATCH = {"cpu": 4 * 785, "mps": 16 * 785, "cuda": 96 * 785}
NOT_FINITE_FEATURES = "features have NaN or infinite values: the weights or images are damaged, or fp16 overflows"
#: Held while a second encoder is loaded: of several threads that need it, one loads it.
_LOADING = threading.Lock()


class Prediction(NamedTuple):
    """What one method says of one image.

    Attributes:
        labels: (height, width) int64.
        probabilities: (classes, height, width) float32, or None where they were not asked for.
    """

    labels: Tensor
    probabilities: Tensor | None


class WindowedInference(nn.Module):
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
        super().__init__()
        self.image_encoder = image_encoder
        self.settings = settings
        self.precision = precision
        self.window_batch = settings.window_batch
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.second_encoders = nn.ModuleDict()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.mean.device

    def check(self, method: Method) -> None:
        """Raise a UserError where this model cannot compute a method. Its second encoder is loaded if it needs one."""
        self.image_encoder.check(method)
        self._second_encoder(self._completed(method))

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
        """Labels (and class probabilities) of normalised images: all stages.

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
        labels = self._labels(maps, sizes, text, readout, False)
        predictions: list[list[Prediction]] = []
        for size, maps_of_image, labels_of_image in zip(sizes, maps, labels, strict=True):
            predictions_of_image = []
            for scores, labels_of_method in zip(maps_of_image, labels_of_image, strict=True):
                probabilities = readout.probabilities(scores, size, text.word_to_class) if keep_probabilities else None
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
        """
        settings = settings or self.settings
        maps = self.score_maps(images, sizes, text, methods, settings, check=not mark_invalid)
        return self._labels(maps, sizes, text, settings.readout, mark_invalid)

    def _labels(
        self,
        maps: Sequence[Sequence[ScoreMap]],
        sizes: Sequence[tuple[int, int]],
        text: TextFeatures,
        readout: Readout,
        mark_invalid: bool,
    ) -> list[Tensor]:
        """Labels of each image, (methods, height, width). On a GPU images with the same size and windows are read
        together.
        """
        labels: dict[int, Tensor] = {}
        batches: dict[tuple, list[int]] = defaultdict(list)
        for number, (size, maps_of_image) in enumerate(zip(sizes, maps, strict=True)):
            kinds = {(scores.grid, tuple(scores.scores.shape)) for scores in maps_of_image}
            one_kind = len(kinds) == 1 and all(can_be_batched(readout, scores, size) for scores in maps_of_image)
            if self.device.type != "cpu" and one_kind:
                batches[kinds.pop(), size].append(number)
                continue
            by_method = []
            for scores in maps_of_image:
                labels_of_method = readout.labels(scores, size, text.word_to_class)
                if mark_invalid:
                    is_finite = scores.scores.isfinite().all()
                    labels_of_method = labels_of_method.masked_fill(~is_finite, INVALID_LABEL)
                by_method.append(labels_of_method)
            labels[number] = by_method[0][None] if len(by_method) == 1 else torch.stack(by_method)
        for (_, size), numbers in batches.items():
            maps_of_batch = [scores for number in numbers for scores in maps[number]]
            together = labels_of_images(readout, maps_of_batch, size, text.word_to_class)
            labels.update(zip(numbers, together.unflatten(0, (len(numbers), -1)).unbind(), strict=True))
        return [labels[number] for number in range(len(maps))]

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
        """
        settings = settings or self.settings
        methods = methods or [settings.chosen_method]
        # A method that is there several times stays one object, by which its features are known.
        completed = {id(method): self._completed(method) for method in methods}
        methods = [completed[id(method)] for method in methods]
        texts = [text] * len(methods) if isinstance(text, TextFeatures) else text
        for method in completed.values():
            self.check(method)
        encoded = [[EncodedImage(self._grid(image, method, settings)) for method in methods] for image in images]
        for batch in window_batches(images, encoded):
            encoded_windows = 0
            while encoded_windows < len(batch.windows):
                # The number is asked for again each time: where memory ran out, it has become smaller.
                next_batch = batch.part(encoded_windows, self._windows_per_batch(batch, methods))
                with self._halving_batches(next_batch):
                    self._encode(next_batch, methods, texts, encoded)
                    encoded_windows += len(next_batch.windows)
        post = settings.chosen_post_processing if post_process else None
        contexts = []
        for image, size in zip(images, sizes, strict=True):
            contexts.append([self._image_context(image, size, words, settings) for words in texts])
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

    def _encode(
        self,
        batch: WindowBatch,
        methods: Sequence[Method],
        texts: Sequence[TextFeatures],
        encoded: Sequence[Sequence[EncodedImage]],
    ) -> None:
        """Encode windows, compare them with the words, and add their scores to ``encoded``, by image and method."""
        batch_methods = [methods[number] for number in batch.methods]
        windows = torch.stack(batch.windows)
        # Before windows are extended for the first encoder: each extends them to multiples of its own patch.
        second = self._second_features(windows, batch.incomplete, batch_methods)
        if batch.incomplete == "extended":
            windows = extend(windows, self.image_encoder.patch_size, -self.mean / self.std)
        words = [texts[number].features for number in batch.methods]
        features = self._features(windows, batch_methods, words, second)
        # All scores before any is added: where memory runs out on the way, the whole batch is done again.
        scores = []
        for method, method_words, method_features in zip(batch_methods, words, features, strict=True):
            grid = tuple(method_features.shape[1:3])
            context = Context(grid, image=windows, text=method_words, second=second.get(method.guide_key))
            scores.append(method.scores(method_features, context))
        for position, number in enumerate(batch.methods):
            method = methods[number]
            features_by_name = {"features": features[position], "second encoder": second.get(method.guide_key)}
            for index, image in enumerate(batch.images):
                encoded[image][number].scores.append(scores[position][index])
                for name in method.keeps:
                    encoded[image][number].features[name].append(features_by_name[name][index])

    def _features(
        self, windows: Tensor, methods: Sequence[Method], words: Sequence[Tensor], second: Mapping[GuideKey, Tensor]
    ) -> list[Tensor]:
        """Dense features of windows by each method; the same method with other words is computed again only where its
        features depend on the words.
        """
        keys = []
        rows: dict[tuple, tuple[Method, Tensor]] = {}
        for method, method_words in zip(methods, words, strict=True):
            key = (id(method), id(method_words) if "text" in method.needs else None)
            keys.append(key)
            rows[key] = (method, method_words)
        distinct_methods, words_of_methods = zip(*rows.values(), strict=True)
        features = self.image_encoder(windows, distinct_methods, words_of_methods, second)
        features_by_key = dict(zip(rows, features, strict=True))
        return [features_by_key[key] for key in keys]

    def _join(
        self,
        encoded: Sequence[Sequence[EncodedImage]],
        methods: Sequence[Method],
        contexts: Sequence[Sequence[ImageContext]],
        has_post_processing: bool,
    ) -> list[list[ScoreMap]]:
        """The score maps of images of which all windows are encoded; what was held of the windows is dropped."""
        maps = []
        if self.device.type != "cpu":
            stack_windows(encoded)
        for windows_by_method, contexts_of_image in zip(encoded, contexts, strict=True):
            maps_of_image = []
            for method, windows, context in zip(methods, windows_by_method, contexts_of_image, strict=True):
                second = self._second_encoder(method)
                joining_context = replace(
                    context,
                    features={name: torch.stack(features) for name, features in windows.features.items()},
                    second_patch=None if second is None else second.patch_size,
                    has_post_processing=has_post_processing,
                )
                scores = windows.stacked if windows.stacked is not None else torch.stack(windows.scores)
                maps_of_image.append(method.join(scores, windows.grid, joining_context))
                windows.clear()
            maps.append(maps_of_image)
        return maps

    def encode(self, images: Tensor, methods: Sequence[Method], text: TextFeatures | None = None) -> list[Tensor]:
        """Dense features of images, with what the methods ask for: see :meth:`DenseEncoder.forward`.

        Args:
            images: (B, 3, H, W), normalised, all of one size.
            methods: how the last blocks are computed.
            text: of :meth:`ClearCLIP.encode_text`, where a method's features depend on the words.
        """
        methods = [self._completed(method) for method in methods]
        second = self._second_features(images, "cut", methods)
        return self.image_encoder(images, methods, None if text is None else text.features, second)

    def _second_features(self, images: Tensor, incomplete: str, methods: Sequence[Method]) -> dict[GuideKey, Tensor]:
        """Features of images (B, 3, H, W) by the second encoders that methods need."""
        features: dict[GuideKey, Tensor] = {}
        for method in methods:
            encoder = self._second_encoder(method)
            if encoder is not None and method.guide_key not in features:
                rgb = self.denormalize(images)
                if incomplete == "extended":
                    rgb = extend(rgb, encoder.patch_size, torch.zeros_like(self.mean))
                features[method.guide_key] = encoder(rgb, method.guide_features)
        return features

    def _second_encoder(self, method: Method) -> SecondEncoder | None:
        """The second encoder that a method needs, loaded once; None where it needs none."""
        if "second encoder" not in method.needs:
            return None
        key = f"{method.guide} {method.guide_weights or ''}".strip().replace(".", "_")  # a module's name has no dot
        with _LOADING:
            if key not in self.second_encoders:
                # Inference tensors could neither be moved nor loaded later.
                with torch.inference_mode(False):
                    options = (method.guide, method.guide_weights, self.device, self.precision)
                    self.second_encoders[key] = load_second_encoder(*options)
        return self.second_encoders[key]

    def _completed(self, method: Method) -> Method:
        """A method with the model's own values of options that are None."""
        return method.completed(self.image_encoder.method_options)

    def _windows_per_batch(self, batch: WindowBatch, methods: Sequence[Method]) -> int:
        """How many of a batch's windows are encoded together."""
        if self.window_batch is not None:
            return self.window_batch
        height, width = batch.windows[0].shape[-2:]
        encoders: list[Any] = [self.image_encoder]
        encoders += [self._second_encoder(methods[number]) for number in batch.methods]
        patches = [encoder.patch_size for encoder in encoders if encoder is not None]
        tokens = max(1 + (height // patch_height) * (width // patch_width) for patch_height, patch_width in patches)
        return max(1, TOKENS_PER_BATCH[self.device.type] // tokens)

    @contextmanager
    def _halving_batches(self, batch: WindowBatch) -> Iterator[None]:
        """Where memory runs out inside: go on afterwards, with half as many windows at a time.

        Raises:
            UserError: it was a single window.
        """
        try:
            with without_tf32():
                yield
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if len(batch.windows) == 1:
            raise UserError(
                f"out of GPU memory with a single window of {tuple(batch.windows[0].shape[-2:])} pixels; "
                "use smaller windows (slide_crop) or another device"
            )
        self.window_batch = len(batch.windows) // 2
        warnings.warn(f"out of GPU memory: window_batch is now {self.window_batch}", stacklevel=2)
        if self.device.type == "mps":
            torch.mps.empty_cache()
        else:
            torch.cuda.empty_cache()

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

    def denormalize(self, images: Tensor) -> Tensor:
        """Normalised images (…, 3, H, W) as 0..1 RGB.

        OpenAI's mean and std are taken unrounded, as ProxyCLIP's release does: its attention has a sharp threshold.
        """
        rounded = torch.stack([self.mean, self.std]) / 255
        exact = rounded.new_tensor([open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD])[:, :, None, None]
        mean, std = torch.where((rounded - exact).abs() < 1e-5, exact, rounded)
        return images * std + mean


def _check_finite(maps: Sequence[Sequence[ScoreMap]]) -> None:
    """Raise a UserError for scores that are not finite: a pixel with such must never pass for label 0."""
    finite = [scores.scores.isfinite().all() for maps_of_image in maps for scores in maps_of_image]
    if finite and not torch.stack(finite).all():
        raise UserError(NOT_FINITE_FEATURES)

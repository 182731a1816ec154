"""One batch of windows through the encoders: what every method scores of them, and how many fit into memory.

:class:`WindowEncoder` knows nothing of whole images; :mod:`clearclip.inference` cuts them into windows and joins what
comes back.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from clearclip.backbones import DenseEncoder, SecondEncoder, load_second_encoder
from clearclip.methods import Context, Method, SecondEncoderKey
from clearclip.methods.result_checks import check_scores
from clearclip.text import TextFeatures
from clearclip.utils.devices import is_out_of_memory, without_tf32
from clearclip.utils.errors import UserError
from clearclip.utils.open_clip_import import open_clip
from clearclip.windows.batches import EncodedWindows, WindowBatch, extend

#: Tokens that one encoder batch may hold by default. A window of 448 pixels at patch 16 has 785, so these are 4 such
#: windows on a CPU, 16 on Apple's GPU and 96 on CUDA.
TOKENS_PER_BATCH = {"cpu": 4 * 785, "mps": 16 * 785, "cuda": 96 * 785}
#: Held while a second encoder is loaded: of several threads that need it, one loads it.
_SECOND_ENCODER_LOCK = threading.Lock()


class WindowEncoder(nn.Module):
    """A frozen image tower, the second encoders that methods ask for, and the normalisation of images.

    Args:
        image_encoder: images to dense features.
        mean, std: normalisation of 0..255 RGB, three numbers each.
        precision: "fp32", "fp16" or "bf16": what the encoders compute in.
        window_batch: how many windows are encoded at a time; None means what fits the device.
    """

    def __init__(
        self,
        image_encoder: DenseEncoder,
        mean: Sequence[float],
        std: Sequence[float],
        precision: str,
        window_batch: int | None = None,
    ):
        super().__init__()
        self.image_encoder = image_encoder
        self.precision = precision
        self.window_batch = window_batch
        # Not persistent: checkpoints of the towers have no such tensors.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        # A buffer, since numbers that are made a tensor at every call are copied to a GPU at every call.
        exact = torch.tensor([open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD])[:, :, None, None]
        self.register_buffer("exact_statistics", exact, persistent=False)
        self.second_encoders = nn.ModuleDict()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.mean.device

    def check(self, method: Method) -> None:
        """Raise a UserError where this model cannot compute a method. Its second encoder is loaded if it needs one."""
        self.image_encoder.check(method)
        self.second_encoder(self.completed(method))

    def normalize(self, image: np.ndarray | Tensor) -> Tensor:
        """(H, W, 3) or (3, H, W) uint8 RGB to (3, H, W) float32, normalised, on the model's device."""
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return (image.to(self.device, non_blocking=True).float() - self.mean) / self.std

    def denormalize(self, images: Tensor) -> Tensor:
        """Normalised images (…, 3, H, W) as 0..1 RGB.

        OpenAI's mean and std are taken unrounded, as ProxyCLIP's release does: its attention has a sharp threshold.
        """
        rounded = torch.stack([self.mean, self.std]) / 255
        is_openai = (rounded - self.exact_statistics).abs() < 1e-5
        mean, std = torch.where(is_openai, self.exact_statistics, rounded)
        return images * std + mean

    def completed(self, method: Method) -> Method:
        """A method with the model's own values of options that are None."""
        return method.completed(self.image_encoder.method_options)

    def encode(self, images: Tensor, methods: Sequence[Method], text: TextFeatures | None = None) -> list[Tensor]:
        """Dense features of images, with what the methods ask for: see :meth:`DenseEncoder.forward`.

        Args:
            images: (B, 3, H, W), normalised, all of one size.
            methods: how the last blocks are computed.
            text: of :meth:`ClearCLIP.encode_text`, where a method's features depend on the words.

        Returns:
            For each method (B, rows, columns, E), not normalised.
        """
        methods = [self.completed(method) for method in methods]
        second_features = self._second_features(images, "cut", methods)
        words = None if text is None else text.features
        return self.image_encoder(images, methods, words, second_features)

    def encode_and_score(
        self,
        batch: WindowBatch,
        methods: Sequence[Method],
        texts: Sequence[TextFeatures],
        encoded: Sequence[Sequence[EncodedWindows]],
    ) -> None:
        """Encode windows, score their patches by each method, and add both to what is known of their images.

        Args:
            batch: windows of one size, and the numbers of their images and methods.
            methods: of all batches, in the order of the results; :meth:`completed` already.
            texts: the words that each method compares with.
            encoded: by image and method; scores and the features that a method keeps are appended.
        """
        batch_methods = [methods[number] for number in batch.method_numbers]
        words = [texts[number].features for number in batch.method_numbers]
        windows = torch.stack(batch.windows)
        # Before windows are extended for the first encoder: each extends them to multiples of its own patch.
        second_features = self._second_features(windows, batch.incomplete, batch_methods)
        if batch.incomplete == "extended":
            windows = extend(windows, self.image_encoder.patch_size, -self.mean / self.std)
        distinct, index_by_method = distinct_computations(batch_methods, words)
        distinct_methods, distinct_words = zip(*distinct, strict=True)
        features = self.image_encoder(windows, distinct_methods, distinct_words, second_features)
        # One entry for each method again: those of one computation share its tensor.
        features_by_method = [features[index] for index in index_by_method]

        # All scores before any is added: where memory runs out on the way, the whole batch is done again.
        scores_by_method = []
        for method, method_words, method_features in zip(batch_methods, words, features_by_method, strict=True):
            grid = tuple(method_features.shape[1:3])
            context = Context(
                grid, image=windows, text=method_words, second=second_features.get(method.second_encoder_key)
            )
            scores = method.scores(method_features, context)
            check_scores(method, scores, len(windows), len(method_words))
            scores_by_method.append(scores)

        for position, number in enumerate(batch.method_numbers):
            method = methods[number]
            tensor_by_name = {
                "features": features_by_method[position],
                "second encoder": second_features.get(method.second_encoder_key),
            }
            for index, image in enumerate(batch.image_numbers):
                encoded[image][number].scores.append(scores_by_method[position][index])
                for name in method.keeps:
                    encoded[image][number].features[name].append(tensor_by_name[name][index])

    def second_encoder(self, method: Method) -> SecondEncoder | None:
        """The second encoder that a method needs, loaded once; None where it needs none."""
        if "second encoder" not in method.needs:
            return None
        key = f"{method.guide} {method.guide_weights or ''}".strip().replace(".", "_")  # a module's name has no dot
        with _SECOND_ENCODER_LOCK:
            if key not in self.second_encoders:
                # Inference tensors could neither be moved nor loaded later.
                with torch.inference_mode(False):
                    encoder = load_second_encoder(method.guide, method.guide_weights, self.device, self.precision)
                    self.second_encoders[key] = encoder
        return self.second_encoders[key]

    def _second_features(
        self, images: Tensor, incomplete: str, methods: Sequence[Method]
    ) -> dict[SecondEncoderKey, Tensor]:
        """Features of images (B, 3, H, W) by the second encoders that methods need."""
        features: dict[SecondEncoderKey, Tensor] = {}
        for method in methods:
            encoder = self.second_encoder(method)
            if encoder is None or method.second_encoder_key in features:
                continue
            rgb = self.denormalize(images)
            if incomplete == "extended":
                rgb = extend(rgb, encoder.patch_size, torch.zeros_like(self.mean))
            features[method.second_encoder_key] = encoder(rgb, method.second_encoder_features)
        return features

    def windows_per_batch(self, batch: WindowBatch, methods: Sequence[Method]) -> int:
        """How many of a batch's windows are encoded together: ``window_batch``, or what fits the device."""
        if self.window_batch is not None:
            return self.window_batch
        patch_sizes = [self.image_encoder.patch_size]
        for number in batch.method_numbers:
            second_encoder = self.second_encoder(methods[number])
            if second_encoder is not None:
                patch_sizes.append(second_encoder.patch_size)
        height, width = batch.windows[0].shape[-2:]
        # The encoder with the smallest patches has the most tokens, and with them the most memory.
        tokens = max(1 + (height // patch_height) * (width // patch_width) for patch_height, patch_width in patch_sizes)
        return max(1, TOKENS_PER_BATCH[self.device.type] // tokens)

    @contextmanager
    def halve_when_out_of_memory(self, batch: WindowBatch) -> Iterator[None]:
        """Where memory runs out inside, drop the error and halve ``window_batch`` for good: the caller tries again.

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
        # The traceback keeps the tensors of the failed attempt alive: memory is freed after the except block only.
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


def distinct_computations(
    methods: Sequence[Method], words: Sequence[Tensor]
) -> tuple[list[tuple[Method, Tensor]], list[int]]:
    """What has to be computed: a method's features for other words are the same, unless they depend on the words.

    Args:
        methods: one may be there several times, as the same object.
        words: the features of each method's words.

    Returns:
        The distinct pairs of method and words, and for each method the index of its pair.
    """
    distinct: dict[tuple, tuple[Method, Tensor]] = {}
    keys = []
    for method, method_words in zip(methods, words, strict=True):
        key = (id(method), id(method_words) if "text" in method.needs else None)
        distinct[key] = (method, method_words)
        keys.append(key)
    positions = {key: position for position, key in enumerate(distinct)}
    return list(distinct.values()), [positions[key] for key in keys]

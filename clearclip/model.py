"""The public object: a frozen CLIP that segments images by words."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearclip.checkpoints import (
    DEFAULT,
    OPENAI_MEAN,
    OPENAI_STD,
    Weights,
    choose_weights,
    is_miniature,
    load_clip,
)
from clearclip.devices import choose_device, choose_precision
from clearclip.errors import UserError, check_number
from clearclip.image_encoder import ImageEncoder
from clearclip.images import ImageLike, read_image, resize_to_protocol
from clearclip.methods import choose_method
from clearclip.segmentation import Segmentation
from clearclip.text import ClassWords, TextEncoder, TextFeatures
from clearclip.windows import WindowGrid, class_probabilities, label_map
from clearclip.windows.grid import check_windows

#: Patches that one encoder batch may hold by default: 4 windows of 448 pixels at patch 16 on CPU, 96 on GPU.
TOKENS_PER_BATCH = {"cpu": 4 * 785, "mps": 16 * 785, "cuda": 96 * 785}


class ClearCLIP(nn.Module):
    """Open-vocabulary segmentation with a frozen CLIP (ClearCLIP, ECCV 2024).

    Most people call :meth:`from_pretrained` and then :meth:`segment`.

    Args:
        image_encoder: images to dense features.
        text_encoder: words to text features; None for an image tower without a text side.
        slide_crop: side of the windows in pixels; 0 takes the whole image at once.
        slide_stride: step between windows.
        logit_scale: factor of the similarities before the softmax over words.
        prob_thd: pixels whose largest probability is below it get label 0.
        short_side, long_side: images given to :meth:`segment` are resized so that the short side is the first and
            the long side at most the second; None keeps their size.
        mean, std: normalisation of 0..255 RGB.
        precision: "fp32", "fp16" or "bf16": what the encoders compute in.
        window_batch: windows per encoder batch; default: as many as fit :data:`TOKENS_PER_BATCH`.
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        text_encoder: TextEncoder | None,
        *,
        slide_crop: int = 448,
        slide_stride: int = 224,
        logit_scale: float = 50.0,
        prob_thd: float = 0.0,
        short_side: int | None = 448,
        long_side: int = 2048,
        mean: Sequence[float] = OPENAI_MEAN,
        std: Sequence[float] = OPENAI_STD,
        precision: str = "fp32",
        window_batch: int | None = None,
        weights: Weights | None = None,
    ):
        super().__init__()
        check_windows(slide_crop, slide_stride)
        check_number("prob_thd", prob_thd, 0, 1)
        check_number("logit_scale", logit_scale, 0, float("inf"))
        if window_batch is not None and (not isinstance(window_batch, int) or window_batch < 1):
            raise UserError(f"window_batch must be a whole number of at least 1, not {window_batch!r}")
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.slide_crop = slide_crop
        self.slide_stride = slide_stride
        self.logit_scale = float(logit_scale)
        self.prob_thd = float(prob_thd)
        self.short_side = short_side
        self.long_side = long_side
        self.precision = precision
        self.window_batch = window_batch
        self.weights = weights
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    @classmethod
    def from_pretrained(
        cls,
        model_name: str | None = None,
        pretrained: str | None = DEFAULT,
        *,
        clip_type: str | None = None,
        vit_type: str | None = None,
        quick_gelu: bool | None = None,
        model_type: str = "ClearCLIP",
        ignore_residual: bool = True,
        attention: str | None = None,
        residual: bool | None = None,
        ffn: bool | None = None,
        alpha: float = 1.0,
        normalization: str = "openai",
        precision: str = "auto",
        device: str | torch.device | None = None,
        cached: bool = True,
        **settings: Any,
    ) -> ClearCLIP:
        """Load a model.

        Args:
            model_name, pretrained: what ``open_clip.create_model`` takes: ``("ViT-B-16", "openai")``, a checkpoint
                file as ``pretrained``, a ``hf-hub:`` or ``local-dir:`` name; ``"miniature"`` is the bundled model.
            clip_type, vit_type: a row of the paper's table instead, such as ``("MetaCLIP", "ViT-L/14")``.
            quick_gelu: force the activation, which otherwise follows the tag.
            model_type, ignore_residual, attention, residual, ffn, alpha: the method, see
                :func:`clearclip.methods.choose_method`.
            normalization: "openai" (mean and std of the published tables) or "pretrained" (the checkpoint's own).
            precision: "auto", "fp32", "fp16" or "bf16", see :func:`clearclip.devices.choose_precision`.
            device: default MMEngine's choice.
            cached: keep text features on disk.
            **settings: of the constructor (``slide_crop``, ``prob_thd``, …). For the miniature the windows default
                to 64 pixels, stride 32, and images keep their size.

        Raises:
            UserError: anything that does not exist, fit or load.
        """
        device = choose_device(device)
        precision = choose_precision(precision, device)
        if normalization not in ("openai", "pretrained"):
            raise UserError(f"unknown normalization {normalization!r}; choose openai or pretrained")
        method = choose_method(model_type, ignore_residual, attention, residual, ffn, alpha)
        if clip_type in ("BLIP", "DINO") and model_name is not None:
            raise UserError(f"clip_type={clip_type!r} takes no model_name; name a file or folder as pretrained")
        if clip_type == "DINO":
            from clearclip.dino import load_dino

            loaded = load_dino(vit_type or "ViT-B/16", pretrained, method, device, precision)
        elif clip_type == "BLIP":
            from clearclip.blip import load_blip

            square = settings.get("slide_crop", 448) or None
            loaded = load_blip(vit_type or "ViT-B/16", pretrained, method, device, precision, square, cached)
        else:
            clip = load_clip(choose_weights(clip_type, vit_type, model_name, pretrained, quick_gelu), device, precision)
            image_encoder = ImageEncoder(clip.model.visual, method)
            loaded = (
                image_encoder,
                clip_text_encoder(clip, precision, cached),
                clip.weights,
                clip.mean,
                clip.std,
            )
        image_encoder, text_encoder, weights, mean, std = loaded
        if is_miniature(weights.model_name):
            settings = {"slide_crop": 64, "slide_stride": 32, "short_side": None, **settings}
        # The published tables have no row of DINO's, whose statistics want its own normalisation.
        if normalization == "openai" and clip_type != "DINO":
            mean, std = OPENAI_MEAN, OPENAI_STD
        model = cls(image_encoder, text_encoder, mean=mean, std=std, precision=precision, weights=weights, **settings)
        return model.to(device).eval()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.mean.device

    def encode_text(self, classes: ClassWords | Sequence[str], progress: bool = False) -> TextFeatures:
        """Text features of classes (a list of names, each of which may list comma-separated words).

        Raises:
            UserError: a blank name, or a model without a text side.
        """
        if self.text_encoder is None:
            raise UserError("this model has no text side, so it cannot segment by words; it serves the statistics only")
        if not isinstance(classes, ClassWords):
            classes = ClassWords.parse(classes)
        return self.text_encoder.encode(classes, progress).to(self.device)

    @torch.inference_mode()
    def similarities(self, images: Sequence[Tensor], text: TextFeatures) -> list[tuple[Tensor, WindowGrid]]:
        """Cosine similarity of every patch with every word.

        Windows of all images that have the same size are encoded together, ``window_batch`` at a time.

        Args:
            images: each (3, H, W), normalised, of any size, on the model's device.
            text: of :meth:`encode_text`.

        Returns:
            For each image (rows of patches, columns of patches, words) float32, and its windows.

        Raises:
            UserError: a feature is not finite.
        """
        encoder = self.image_encoder
        grids = [
            WindowGrid.of(
                tuple(image.shape[-2:]),
                self.slide_crop,
                self.slide_stride,
                encoder.patch_size,
                encoder.fixed_size,
            )
            for image in images
        ]
        by_size: dict[torch.Size, list[tuple[int, int, Tensor]]] = defaultdict(list)
        for index, (image, grid) in enumerate(zip(images, grids, strict=True)):
            for position, window in enumerate(grid.cut(image)):
                by_size[window.shape].append((index, position, window))
        found: list[list[Tensor]] = [[None] * grid.count for grid in grids]
        for places in by_size.values():
            for (index, position, _), similarity in zip(
                places, self._compare([p[2] for p in places], text), strict=True
            ):
                found[index][position] = similarity
        joined = [grid.join(torch.stack(windows)) for grid, windows in zip(grids, found, strict=True)]
        # A pixel without a finite similarity must never pass for label 0.
        if joined and not torch.stack([similarity.isfinite().all() for similarity in joined]).all():
            raise UserError(
                "features have NaN or infinite values: the weights or images are damaged, or fp16 overflows"
            )
        return list(zip(joined, grids, strict=True))

    def _compare(self, windows: list[Tensor], text: TextFeatures) -> list[Tensor]:
        """Similarities (h, w, words) of windows of one size, in batches that shrink where memory runs out."""
        out: list[Tensor] = []
        while len(out) < len(windows):
            batch = windows[len(out) : len(out) + self._window_batch(windows[0])]
            try:
                features = self.image_encoder(torch.stack(batch)).float()
                out.extend(F.normalize(features, dim=-1) @ text.features.T)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise UserError(
                        f"out of GPU memory with a single window of {tuple(batch[0].shape[-2:])} pixels; "
                        "use smaller windows (slide_crop) or another device"
                    ) from None
                self.window_batch = len(batch) // 2
                warnings.warn(f"out of GPU memory: window_batch is now {self.window_batch}", stacklevel=2)
                torch.cuda.empty_cache()
        return out

    def _window_batch(self, window: Tensor) -> int:
        if self.window_batch is not None:
            return self.window_batch
        height, width = self.image_encoder.patch_size
        tokens = 1 + (window.shape[-2] // height) * (window.shape[-1] // width)
        return max(1, TOKENS_PER_BATCH[self.device.type] // tokens)

    @torch.inference_mode()
    def predict(
        self,
        images: Sequence[Tensor],
        text: TextFeatures,
        sizes: Sequence[tuple[int, int]],
        keep_probabilities: bool = False,
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Labels (and class probabilities) of normalised images.

        Args:
            images: each (3, H, W) as for :meth:`similarities`.
            text: what to compare with.
            sizes: height and width to which each result is resized (that of the original image).
            keep_probabilities: also return these.

        Returns:
            For each image its labels, (height, width) int64, and its probabilities, (classes, height, width)
            float32, or None.

        Raises:
            UserError: features that are not finite (damaged weights, or fp16 overflow).
        """
        results = []
        for (similarity, grid), size in zip(self.similarities(images, text), sizes, strict=True):
            labels = label_map(similarity, grid, size, text.word_to_class, self.logit_scale, self.prob_thd)
            probabilities = None
            if keep_probabilities:
                probabilities = class_probabilities(similarity, grid, size, text.word_to_class, self.logit_scale)
            results.append((labels, probabilities))
        return results

    def normalize(self, image: np.ndarray | Tensor) -> Tensor:
        """(H, W, 3) or (3, H, W) uint8 RGB to (3, H, W) float32, normalised, on the model's device."""
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return (image.to(self.device, non_blocking=True).float() - self.mean) / self.std

    def segment(
        self,
        images: ImageLike | Sequence[ImageLike],
        classes: ClassWords | Sequence[str],
        prob_thd: float | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Segment images by words.

        Args:
            images: a path, PIL image, or (H, W), (H, W, 3) or (H, W, 4) uint8 array; or a list of them, which is
                computed as one batch.
            classes: names in label order; a name may list comma-separated words for its class.
            prob_thd: overrides the model's: pixels whose largest probability is below get label 0.

        Returns:
            A :class:`~clearclip.segmentation.Segmentation`, or a list of them for a list.

        Raises:
            UserError: no classes, or an image that cannot be read.
        """
        single = not isinstance(images, list | tuple)
        text = self.encode_text(classes)
        threshold = self.prob_thd if prob_thd is None else check_number("prob_thd", prob_thd, 0, 1)
        originals = [read_image(image) for image in ([images] if single else images)]
        resized = [resize_to_protocol(image, self.short_side, self.long_side) for image in originals]
        results = []
        compared = self.similarities([self.normalize(image) for image in resized], text)
        for original, (similarity, grid) in zip(originals, compared, strict=True):
            results.append(
                Segmentation(original, similarity, grid, text, logit_scale=self.logit_scale, prob_thd=threshold)
            )
        return results[0] if single else results


def clip_text_encoder(clip: Any, precision: str, cached: bool) -> TextEncoder:
    """The text side of a :class:`~clearclip.checkpoints.LoadedCLIP`."""
    bpe = isinstance(getattr(clip.tokenizer, "encoder", None), dict)
    return TextEncoder(
        clip.model,
        clip.tokenizer,
        dim=clip.model.visual.output_dim,
        # The two more are the start and end of a text.
        count_tokens=(lambda text: len(clip.tokenizer.encode(text)) + 2) if bpe else None,
        context_length=getattr(clip.tokenizer, "context_length", 77),
        precision=precision,
        cached=cached,
    )

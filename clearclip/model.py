"""The model: windows in, similarities and labels out, for one method or several at once."""

from __future__ import annotations

import os
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from clearclip.backbones import DenseEncoder, SecondEncoder, load_second_encoder, load_towers
from clearclip.methods import Method, build_method
from clearclip.model_settings import ModelSettings
from clearclip.segmentation import Segmentation
from clearclip.text import ClassWords, TextEncoder, TextFeatures
from clearclip.utils.devices import choose_device, choose_precision, is_out_of_memory, without_tf32
from clearclip.utils.errors import UserError
from clearclip.utils.images import ImageLike, read_image, resize_to_protocol
from clearclip.utils.open_clip_import import open_clip
from clearclip.utils.validators import of_type
from clearclip.windows import WindowGrid, class_probabilities, label_map, propagate

#: Patches that one encoder batch may hold by default: 4 windows of 448 pixels at patch 16 on CPU, 96 on GPU.
TOKENS_PER_BATCH = {"cpu": 4 * 785, "mps": 16 * 785, "cuda": 96 * 785}
#: Images that segment() holds at a time.
IMAGES_PER_BATCH = 8
_PROBABILITY = of_type(float, int, low=0, high=1)
#: Held while a second encoder is loaded: of several threads that need it, one loads it.
_LOADING = threading.Lock()
Images: TypeAlias = "ImageLike | Iterable[ImageLike]"
Classes: TypeAlias = ClassWords | Sequence[str]
MethodsLike: TypeAlias = Sequence[str | Mapping[str, Any] | Method]


class ClearCLIP(nn.Module):
    """Open-vocabulary segmentation with a frozen CLIP (ClearCLIP, ECCV 2024).

    Most people call :meth:`from_pretrained` and then :meth:`segment`.

    Args:
        image_encoder: images to dense features.
        text_encoder: words to text features; None for an image tower without a text side.
        settings: method, windows, threshold and so on; may be replaced at any time.
        mean, std: normalisation of 0..255 RGB.
        precision: "fp32", "fp16" or "bf16": what the encoders compute in.
        weights: what was loaded (:class:`clearclip.weights.Weights`), where known.
    """

    def __init__(
        self,
        image_encoder: DenseEncoder,
        text_encoder: TextEncoder | None,
        settings: ModelSettings,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        precision: str = "fp32",
        weights: Any = None,
    ):
        super().__init__()
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.settings = settings
        self.precision = precision
        self.weights = weights
        self.window_batch = settings.window_batch
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.second_encoders = nn.ModuleDict()
        self.check(settings.chosen_method)

    @classmethod
    def from_pretrained(
        cls, model_name: str | None = None, pretrained: str | os.PathLike | None = None, **options: Any
    ) -> ClearCLIP:
        """Load a model.

            model = ClearCLIP.from_pretrained("ViT-B-16", "openai")
            model = ClearCLIP.from_pretrained("miniature", method="SCLIP + ClearCLIP")

        Args:
            model_name, pretrained: what ``open_clip.create_model`` takes: ``("ViT-B-16", "openai")``, a local file as
                ``pretrained``, a ``hf-hub:`` or ``local-dir:`` name; ``"miniature"`` is the bundled model.
            **options: see :class:`~clearclip.ModelSettings`: ``clip_type="MetaCLIP", vit_type="ViT-L/14"``
                for a row of the paper's table, ``model_type``, ``slide_crop``, ``prob_thd``, ``device``, …

        Raises:
            UserError: anything that does not exist, fit or load.
        """
        return cls.from_settings(
            ModelSettings.from_options({**options, "model_name": model_name, "pretrained": pretrained})
        )

    @classmethod
    def from_settings(cls, settings: ModelSettings) -> ClearCLIP:
        """Load the model that these settings describe.

        Raises:
            UserError: anything that does not exist, fit or load.
        """
        device = choose_device(settings.device)
        precision = choose_precision(settings.precision, device)
        towers = load_towers(settings, device, precision)
        own = dict(mean=towers.mean, std=towers.std, weights=towers.weights)
        return cls(towers.image, towers.text, settings, precision=precision, **own).to(device).eval()

    @property
    def method(self) -> Method:
        """How the last blocks are computed where no other methods are asked for."""
        return self.settings.chosen_method

    @property
    def label(self) -> str:
        """The name of the weights."""
        return self.weights.label if self.weights is not None else type(self.image_encoder).__name__

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.mean.device

    def encode_text(self, classes: Classes, progress: bool = False) -> TextFeatures:
        """Text features of classes (a list of names; ``|`` separates the words of one).

        Raises:
            UserError: a blank name, or a model without a text side.
        """
        if self.text_encoder is None:
            raise UserError("this model has no text side, so it cannot segment by words; it serves the statistics only")
        if not isinstance(classes, ClassWords):
            classes = ClassWords.parse(classes)
        with without_tf32():
            return self.text_encoder.encode(classes, progress).to(self.device)

    def check(self, method: Method) -> None:
        """Raise a UserError where this model cannot compute a method. Its second encoder is loaded if it needs one."""
        self.image_encoder.check(method)
        self._second_encoder(method)

    @torch.inference_mode()
    def similarities(
        self,
        images: Sequence[Tensor],
        text: TextFeatures,
        methods: Sequence[Method] | None = None,
        settings: ModelSettings | None = None,
    ) -> list:
        """Cosine similarity of every patch with every word.

        Windows of all images that have the same size are encoded together, ``window_batch`` at a time; blocks that
        several methods share run once.

        Args:
            images: each (3, H, W), normalised, of any size, on the model's device.
            text: of :meth:`encode_text`.
            methods: how the last blocks are computed; None means the model's own method.
            settings: windows and so on; default: the model's own.

        Returns:
            For each image its similarities, (rows of patches, columns of patches, words) float32, and its windows;
            with ``methods`` for each image a list of these, one pair for each method.

        Raises:
            UserError: a feature is not finite, or a method that the model is too shallow for.
        """
        encoder, settings = self.image_encoder, settings or self.settings
        used = [settings.chosen_method] if methods is None else methods
        used = [method.completed(encoder.method_options) for method in used]
        for method in used:
            self.check(method)
        layout = (settings.slide_crop, settings.slide_stride, encoder.patch_size, encoder.fixed_size)
        # Windows of one size that the same methods see run together: (size, methods) → (image, window).
        together: dict[tuple, list[tuple[int, Tensor]]] = defaultdict(list)
        found: list[list[tuple[WindowGrid, list[Tensor]]]] = []
        for index, image in enumerate(images):
            size = tuple(image.shape[-2:])
            grids = [
                WindowGrid.of(size, *layout, method.multiple, whole_resize=settings.whole_image_resize)
                for method in used
            ]
            found.append([(grid, []) for grid in grids])
            for grid in dict.fromkeys(grids):
                members = tuple(number for number, own in enumerate(grids) if own == grid)
                for window in grid.cut(image):
                    together[window.shape, members].append((index, window))
        for (_, members), windows in together.items():
            compared = self._compare([window for _, window in windows], text, [used[member] for member in members])
            for (index, _), similarities in zip(windows, compared, strict=True):
                for member, similarity in zip(members, similarities, strict=True):
                    found[index][member][1].append(similarity)
        joined = [[_join(grid, windows) for grid, windows in of_image] for of_image in found]
        # A pixel without a finite similarity must never pass for label 0.
        if joined and not torch.stack([one.isfinite().all() for pairs in joined for one, _ in pairs]).all():
            raise UserError(
                "features have NaN or infinite values: the weights or images are damaged, or fp16 overflows"
            )
        return [pairs[0] for pairs in joined] if methods is None else joined

    def _compare(self, windows: list[Tensor], text: TextFeatures, methods: list[Method]) -> list[list[Tensor]]:
        """Similarities (h, w, words) by each method of windows of one size, in batches that shrink where memory runs
        out.
        """
        out: list[list[Tensor]] = []
        while len(out) < len(windows):
            batch = windows[len(out) : len(out) + self._window_batch(windows[0], methods)]
            try:
                with without_tf32():
                    features = self.encode(torch.stack(batch), methods, text)
                    similarities = [F.normalize(one.float(), dim=-1) @ text.features.T for one in features]
                out.extend(map(list, zip(*similarities, strict=True)))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise UserError(
                        f"out of GPU memory with a single window of {tuple(batch[0].shape[-2:])} pixels; "
                        "use smaller windows (slide_crop) or another device"
                    ) from None
                self.window_batch = len(batch) // 2
                warnings.warn(f"out of GPU memory: window_batch is now {self.window_batch}", stacklevel=2)
                torch.mps.empty_cache() if self.device.type == "mps" else torch.cuda.empty_cache()
        return out

    def encode(self, images: Tensor, methods: Sequence[Method], text: TextFeatures | None = None) -> list[Tensor]:
        """Dense features of images, with what the methods ask for: see :meth:`DenseEncoder.forward`.

        Args:
            images: (B, 3, H, W), normalised, all of one size.
            methods: how the last blocks are computed.
            text: of :meth:`encode_text`, where a method's features depend on the words.
        """
        methods = [method.completed(self.image_encoder.method_options) for method in methods]
        guides = {(method.guide, method.guide_weights): self._second_encoder(method) for method in methods}
        second = {guide: encoder(self.denormalize(images)) for guide, encoder in guides.items() if encoder is not None}
        return self.image_encoder(images, methods, None if text is None else text.features, second)

    def _second_encoder(self, method: Method) -> SecondEncoder | None:
        """The second encoder that a method needs, loaded once; None where it needs none."""
        method = method.completed(self.image_encoder.method_options)
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

    def _window_batch(self, window: Tensor, methods: Sequence[Method] = ()) -> int:
        if self.window_batch is not None:
            return self.window_batch
        encoders: list[Any] = [self.image_encoder, *filter(None, map(self._second_encoder, methods))]
        patches = [encoder.patch_size for encoder in encoders]
        tokens = max(1 + (window.shape[-2] // height) * (window.shape[-1] // width) for height, width in patches)
        return max(1, TOKENS_PER_BATCH[self.device.type] // tokens)

    @torch.inference_mode()
    def predict(
        self,
        images: Sequence[Tensor],
        text: TextFeatures,
        sizes: Sequence[tuple[int, int]],
        keep_probabilities: bool = False,
        methods: Sequence[Method] | None = None,
        settings: ModelSettings | None = None,
    ) -> list:
        """Labels (and class probabilities) of normalised images.

        Args:
            images: each (3, H, W) as for :meth:`similarities`.
            text: what to compare with.
            sizes: height and width to which each result is resized (that of the original image).
            keep_probabilities: also return these.
            methods: how the last blocks are computed; None means the model's own method.
            settings: windows, threshold and so on; default: the model's own.

        Returns:
            For each image its labels, (height, width) int64, and its probabilities, (classes, height, width)
            float32, or None; with ``methods`` for each image a list of these, one pair for each method.

        Raises:
            UserError: features that are not finite (damaged weights, or fp16 overflow).
        """
        settings, results = settings or self.settings, []
        used = [settings.chosen_method] if methods is None else methods
        for size, (shown, found) in zip(sizes, self._smoothed(images, sizes, text, used, settings), strict=True):
            pairs = []
            for similarity, grid in found:
                arguments = (similarity, grid, size, text.word_to_class, settings.logit_scale)
                labels = label_map(*arguments, settings.prob_thd, shown)
                pairs.append((labels, class_probabilities(*arguments, shown) if keep_probabilities else None))
            results.append(pairs[0] if methods is None else pairs)
        return results

    def _smoothed(
        self,
        images: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        text: TextFeatures,
        methods: Sequence[Method],
        settings: ModelSettings,
    ) -> Iterator[tuple[Tensor | None, list[tuple[Tensor, WindowGrid]]]]:
        """:meth:`similarities`, which TLP has smoothed if it is asked for. Before those of each image comes the image,
        (3, height, width), by which PAMR refines logits later, or None.
        """
        compared = self.similarities(images, text, methods, settings)
        for image, size, pairs in zip(images, sizes, compared, strict=True):
            if settings.post is not None:
                image = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
            if settings.post == "tlp":
                pairs = [propagate(one, grid, image, text.features, settings.tlp_grid) for one, grid in pairs]
            yield image if settings.post == "pamr" else None, pairs

    def normalize(self, image: np.ndarray | Tensor) -> Tensor:
        """(H, W, 3) or (3, H, W) uint8 RGB to (3, H, W) float32, normalised, on the model's device."""
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return (image.to(self.device, non_blocking=True).float() - self.mean) / self.std

    def denormalize(self, images: Tensor) -> Tensor:
        """Normalised images (…, 3, H, W) as 0..1 RGB.

        OpenAI's mean and std are taken unrounded, as ProxyCLIP's release does: its attention has a sharp threshold.
        """
        own = torch.stack([self.mean, self.std]) / 255
        exact = own.new_tensor([open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD])[:, :, None, None]
        mean, std = torch.where((own - exact).abs() < 1e-5, exact, own)
        return images * std + mean

    @overload
    def segment(self, images: ImageLike, classes: Classes, prob_thd: float | None = None) -> Segmentation: ...
    @overload
    def segment(
        self, images: Sequence[ImageLike], classes: Classes, prob_thd: float | None = None
    ) -> list[Segmentation]: ...
    @overload
    def segment(
        self, images: Iterable[ImageLike], classes: Classes, prob_thd: float | None = None
    ) -> Iterator[Segmentation]: ...
    def segment(self, images: Images, classes: Classes, prob_thd: float | None = None) -> Any:
        """Segment an image, or several, by words.

            result = model.segment("photo.jpg", ["sky", "hill | mountain", "horse"])
            result.labels  # (H, W) uint8; `result` shows itself in a notebook

        Args:
            images: a path, a PIL image, or an RGB array, (H, W), (H, W, 3) or (H, W, 4), uint8; a sequence of them; or
                an iterator over them, which is read as the results are, so that any number of images fits into memory.
            classes: names in label order; ``|`` separates the words of one class.
            prob_thd: overrides the model's: pixels whose largest probability is below get label 0.

        Returns:
            The result of an image, a list of results for a sequence, an iterator over them for an iterator.

        Raises:
            UserError: no classes, or an image that cannot be read.
        """
        return self._segment(images, classes, prob_thd, None)

    @overload
    def compare(
        self, images: ImageLike, classes: Classes, methods: MethodsLike, prob_thd: float | None = None
    ) -> dict[str, Segmentation]: ...
    @overload
    def compare(
        self, images: Sequence[ImageLike], classes: Classes, methods: MethodsLike, prob_thd: float | None = None
    ) -> list[dict[str, Segmentation]]: ...
    @overload
    def compare(
        self, images: Iterable[ImageLike], classes: Classes, methods: MethodsLike, prob_thd: float | None = None
    ) -> Iterator[dict[str, Segmentation]]: ...
    def compare(self, images: Images, classes: Classes, methods: MethodsLike, prob_thd: float | None = None) -> Any:
        """Segment by several methods at once: blocks that they share run once.

            results = model.compare("photo.jpg", ["sky", "horse"], ["CLIP", "SCLIP + ClearCLIP", "ClearCLIP"])
            compare_picture(results).save("compare.png")  # from clearclip.segmentation

        Args:
            images, classes, prob_thd: as for :meth:`segment`.
            methods: names, dicts with "type", or methods, as :func:`clearclip.build_method` takes them.

        Returns:
            A result for each method, by its name as given or by its label; a list or an iterator of such dicts, as
            for :meth:`segment`.

        Raises:
            UserError: as for :meth:`segment`; no method, or an unknown one.
        """
        if isinstance(methods, str | Mapping | Method):
            methods = [methods]
        built = [(one, build_method(one)) for one in methods]
        named = {given if isinstance(given, str) else method.label: method for given, method in built}
        if not named:
            raise UserError("no method to compare; name some, such as CLIP and ClearCLIP")
        return self._segment(images, classes, prob_thd, named)

    def _segment(self, images: Any, classes: Classes, prob_thd: float | None, methods: dict[str, Method] | None) -> Any:
        text = self.encode_text(classes)
        threshold = self.settings.prob_thd if prob_thd is None else _PROBABILITY("prob_thd", prob_thd)
        one = isinstance(images, str | os.PathLike | Image.Image | np.ndarray)
        single = one or not isinstance(images, Iterable)
        found = self._results(iter([images] if single else images), text, threshold, methods)
        return next(found) if single else list(found) if isinstance(images, Sequence) else found

    def _results(
        self, images: Iterator[ImageLike], text: TextFeatures, prob_thd: float, methods: dict[str, Method] | None
    ) -> Iterator[Any]:
        how, used = self.settings, list((methods or {"": self.method}).values())
        while originals := [read_image(image) for image in islice(images, IMAGES_PER_BATCH)]:
            sizes = [image.shape[:2] for image in originals]
            resized = [self.normalize(resize_to_protocol(image, how.short_side, how.long_side)) for image in originals]
            for image, (shown, pairs) in zip(originals, self._smoothed(resized, sizes, text, used, how), strict=True):
                results = [
                    Segmentation(image, *pair, text, how.logit_scale, prob_thd, shown, self.label, method.label)
                    for method, pair in zip(used, pairs, strict=True)
                ]
                yield results[0] if methods is None else dict(zip(methods, results, strict=True))

    def __repr__(self) -> str:
        return f"ClearCLIP({self.label}, method {self.method.label}, {self.precision} on {self.device})"


def _join(grid: WindowGrid, windows: list[Tensor]) -> tuple[Tensor, WindowGrid]:
    """Similarities (h, w, words) of all windows side by side, and the windows with so many rows and columns each."""
    grid = grid.with_cells(*windows[0].shape[:2])
    return grid.join(torch.stack(windows)), grid

"""The model that people call: images and words in, label maps out, by one method or several at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, overload

from clearclip.backbones import DenseEncoder, load_towers
from clearclip.inference import WindowedInference
from clearclip.methods import Method, build_method
from clearclip.model_settings import ModelSettings
from clearclip.segmentation import Segmentation
from clearclip.segmented_images import SegmentedImages
from clearclip.text import ClassWords, TextEncoder, TextFeatures
from clearclip.utils.devices import choose_device, choose_precision, without_tf32
from clearclip.utils.errors import UserError
from clearclip.utils.image_inputs import is_one_image
from clearclip.utils.images import ImageLike, protocol_size
from clearclip.utils.validators import of_type
from clearclip.windows import Readout

_PROBABILITY = of_type(float, int, low=0, high=1)
ImageInputs: TypeAlias = "ImageLike | Iterable[ImageLike]"
Classes: TypeAlias = ClassWords | Sequence[str]
MethodsLike: TypeAlias = Sequence[str | Mapping[str, Any] | Method]


class ClearCLIP(WindowedInference):
    """Open-vocabulary segmentation with a frozen CLIP (ClearCLIP, ECCV 2024).

    ClearCLIP is also the name of the method that it computes by default; ``method="CLIP"`` asks for another one.

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
        super().__init__(image_encoder, settings, mean, std, precision)
        self.text_encoder = text_encoder
        self.weights = weights
        # Here, and not at the first image: a method that the model is too shallow for is a mistake of the settings.
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
        # The device first: what "auto" means depends on it, and weights are loaded in the precision of use.
        device = choose_device(settings.device)
        precision = choose_precision(settings.precision, device)
        towers = load_towers(settings, device, precision)
        model = cls(
            towers.image,
            towers.text,
            settings,
            mean=towers.mean,
            std=towers.std,
            precision=precision,
            weights=towers.weights,
        )
        return model.to(device).eval()

    @property
    def method(self) -> Method:
        """How the last blocks are computed where no other methods are asked for."""
        return self.settings.chosen_method

    @property
    def label(self) -> str:
        """The name of the weights."""
        if self.weights is None:
            return type(self.image_encoder).__name__
        return self.weights.label

    def encode_text(self, classes: Classes, progress: bool = False) -> TextFeatures:
        """Text features of classes (a list of names; ``|`` separates the words of one).

        Raises:
            UserError: a blank name, or a model without a text side.
        """
        if self.text_encoder is None:
            raise UserError("this model has no text side, so it cannot segment by words; it serves the statistics only")
        # Words that are parsed already follow the rules of where they come from, such as a file with commas.
        if not isinstance(classes, ClassWords):
            _refuse_commas(classes)
            classes = ClassWords.parse(classes)
        with without_tf32():
            return self.text_encoder.encode(classes, progress).to(self.device)

    def seen_size(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width at which :meth:`segment` sees an image of height and width ``size``."""
        return protocol_size(size, self.settings.short_side, self.settings.long_side)

    @overload
    def segment(
        self, images: ImageLike, classes: Classes, prob_thd: float | None = None, on_error: str = "raise"
    ) -> Segmentation: ...
    @overload
    def segment(
        self, images: Sequence[ImageLike], classes: Classes, prob_thd: float | None = None, on_error: str = "raise"
    ) -> list[Segmentation]: ...
    @overload
    def segment(
        self, images: Iterable[ImageLike], classes: Classes, prob_thd: float | None = None, on_error: str = "raise"
    ) -> Iterator[Segmentation]: ...
    def segment(
        self, images: ImageInputs, classes: Classes, prob_thd: float | None = None, on_error: str = "raise"
    ) -> Any:
        """Segment an image, or several, by words.

            result = model.segment("photo.jpg", ["sky", "hill | mountain", "horse"])
            result.labels  # (H, W) uint8, or uint16 beyond 256 classes; `result` shows itself in a notebook

        Args:
            images: a path, a PIL image, or an RGB array, (H, W), (H, W, 3) or (H, W, 4), uint8; a file's bytes or an
                opened file; a uint8 tensor, (3, H, W); a sequence of them; or an iterator over them, which is read as
                the results are, so that any number of images fits into memory.
            classes: names in label order; ``|`` separates the words of one class.
            prob_thd: overrides the model's: pixels whose largest probability is below get label 0.
            on_error: "raise", or "skip": an image that cannot be read is an
                :class:`~clearclip.utils.image_inputs.ImageFailure` in the place of its result.

        Returns:
            The result of an image, a list of results for a sequence, an iterator over them for an iterator. The
            iterator raises an error in the bad image's turn, after the results before it, and can be gone on with.

        Raises:
            UserError: no classes, or an image that cannot be read.
        """
        text = self.encode_text(classes)
        results = SegmentedImages(self, images, text, self._readout(prob_thd), self.method, self.label, on_error)
        # In kind: an image gives a result, a sequence a list, an iterator an iterator.
        if is_one_image(images):
            return next(results)
        return list(results) if isinstance(images, Sequence) else results

    @overload
    def compare(
        self,
        images: ImageLike,
        classes: Classes,
        methods: MethodsLike,
        prob_thd: float | None = None,
        on_error: str = "raise",
    ) -> dict[str, Segmentation]: ...
    @overload
    def compare(
        self,
        images: Sequence[ImageLike],
        classes: Classes,
        methods: MethodsLike,
        prob_thd: float | None = None,
        on_error: str = "raise",
    ) -> list[dict[str, Segmentation]]: ...
    @overload
    def compare(
        self,
        images: Iterable[ImageLike],
        classes: Classes,
        methods: MethodsLike,
        prob_thd: float | None = None,
        on_error: str = "raise",
    ) -> Iterator[dict[str, Segmentation]]: ...
    def compare(
        self,
        images: ImageInputs,
        classes: Classes,
        methods: MethodsLike,
        prob_thd: float | None = None,
        on_error: str = "raise",
    ) -> Any:
        """Segment by several methods at once: blocks that they share run once.

            results = model.compare("photo.jpg", ["sky", "horse"], ["CLIP", "SCLIP + ClearCLIP", "ClearCLIP"])
            compare_picture(results).save("compare.png")  # from clearclip.segmentation

        Args:
            images, classes, prob_thd, on_error: as for :meth:`segment`.
            methods: names, dicts with "type", or methods, as :func:`clearclip.build_method` takes them.

        Returns:
            A result for each method, by its name as given or by its label; a list or an iterator of such dicts, as
            for :meth:`segment`.

        Raises:
            UserError: as for :meth:`segment`; no method, an unknown one, or two different ones of one label.
        """
        # A single method is a likely slip, and a string would be read letter by letter.
        if isinstance(methods, str | Mapping | Method):
            methods = [methods]
        method_by_name: dict[str, Method] = {}
        for description in methods:
            method = build_method(description)
            name = description if isinstance(description, str) else method.label
            # Two methods of one's own may have the same label; the second one would take the place of the first.
            if method_by_name.setdefault(name, method) != method:
                raise UserError(f"two methods to compare are called {name!r}; give one of them another label")
        if not method_by_name:
            raise UserError("no method to compare; name some, such as CLIP and ClearCLIP")
        text = self.encode_text(classes)
        results = SegmentedImages(self, images, text, self._readout(prob_thd), method_by_name, self.label, on_error)
        # In kind: an image gives a result, a sequence a list, an iterator an iterator.
        if is_one_image(images):
            return next(results)
        return list(results) if isinstance(images, Sequence) else results

    def _readout(self, prob_thd: float | None) -> Readout:
        """The settings' readout, with another threshold if one is given."""
        if prob_thd is None:
            return self.settings.readout
        return replace(self.settings.readout, prob_thd=_PROBABILITY("prob_thd", prob_thd))

    def __repr__(self) -> str:
        return f"ClearCLIP({self.label}, method {self.method.label}, {self.precision} on {self.device})"


def _refuse_commas(classes: Any) -> None:
    """A class with a comma may be one class of several words, or several classes: the user has to say which.

    Raises:
        UserError: a class with a comma; shows both spellings.
    """
    # Other kinds of sequences are refused by ClassWords.parse.
    if not isinstance(classes, list | tuple):
        return
    for name in classes:
        if isinstance(name, str) and "," in name:
            words = [word.strip() for word in name.split(",")]
            raise UserError(
                f"the class {name!r} has a comma; write {' | '.join(words)!r} for several words of one class, or "
                f"{', '.join(map(repr, words))} for several classes"
            )

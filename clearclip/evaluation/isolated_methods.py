"""Methods of the user's own in a pass of their own, so that nothing that they write to is seen by other methods.

They are computed after this package's, one image at a time, each on copies of image and words and from the image's
seed. What all methods share, the weights and the words, is compared once at the end of a run
(:mod:`clearclip.evaluation.run`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from clearclip.evaluation.own_methods import is_own_method
from clearclip.inference import Prediction
from clearclip.methods import Method
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.text import TextFeatures
from clearclip.utils.seeds import seeded


class IsolatedMethods:
    """Predictions by several methods, those of the user's own apart from the others.

    Args:
        model: what computes them.
        methods: in the order of the results.
        settings: windows, threshold and so on.

    Attributes:
        unsteady: labels of methods that gave other labels for the first image the second time, from the same seed.
    """

    def __init__(self, model: ClearCLIP, methods: Sequence[Method], settings: ModelSettings):
        self.model = model
        self.methods = list(methods)
        self.settings = settings
        self.unsteady: list[str] = []
        self._own = [number for number, method in enumerate(self.methods) if is_own_method(method)]
        self._released = [number for number in range(len(self.methods)) if number not in self._own]
        self._is_first_image = True

    @property
    def has_own(self) -> bool:
        """Whether there are methods of the user's own."""
        return bool(self._own)

    def predict(
        self,
        images: Sequence[Tensor],
        text: TextFeatures,
        sizes: Sequence[tuple[int, int]],
        keep_probabilities: bool,
        seeds: Sequence[int],
    ) -> list[list[Prediction]]:
        """For each image, for each method its labels and probabilities; see :meth:`ClearCLIP.predict`."""
        released = [self.methods[number] for number in self._released]
        predictions: list[list[Prediction]] = [[] for _ in images]
        if released:
            predictions = self.model.predict(images, text, sizes, keep_probabilities, released, self.settings)
        for of_image, image, size, seed in zip(predictions, images, sizes, seeds, strict=True):
            # In ascending order, so that each lands where it belongs among the others.
            for number in self._own:
                of_image.insert(number, self._predict_own(number, image, text, size, keep_probabilities, seed))
        return predictions

    def _predict_own(
        self, number: int, image: Tensor, text: TextFeatures, size: tuple[int, int], keep_probabilities: bool, seed: int
    ) -> Prediction:
        def compute() -> Prediction:
            words = replace(text, features=text.features.clone(), word_to_class=text.word_to_class.clone())
            with seeded(seed):
                methods = [self.methods[number]]
                (of_image,) = self.model.predict(
                    [image.clone()], words, [size], keep_probabilities, methods, self.settings
                )
            return of_image[0]

        prediction = compute()
        if self._is_first_image:
            self._is_first_image = number != self._own[-1]
            if not torch.equal(prediction.labels, compute().labels):
                label = self.methods[number].label
                self.unsteady.append(label)
                warnings.warn(
                    f"{label} gives other labels when it sees an image twice, though from the same seed: its numbers "
                    "will not be the same again",
                    stacklevel=2,
                )
        return prediction

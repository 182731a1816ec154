"""Words to text features: 80 prompts a word, encoded, normalised, averaged, normalised again."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from clearclip.text.cache import TextCache
from clearclip.text.words import ClassWords
from clearclip.utils.errors import UserError

#: OpenAI's 80 ImageNet prompt templates.
TEMPLATES: tuple[Callable[[str], str], ...] = open_clip.OPENAI_IMAGENET_TEMPLATES
WORDS_PER_BATCH = 3  # 240 prompts


@dataclass(frozen=True)
class TextFeatures:
    """What the image is compared with.

    Attributes:
        classes: the classes and their words.
        features: (words, E) float32, each of unit length.
        word_to_class: (words,) int64.
    """

    classes: ClassWords
    features: Tensor
    word_to_class: Tensor

    def to(self, device: torch.device) -> TextFeatures:
        """The same on another device."""
        return TextFeatures(self.classes, self.features.to(device), self.word_to_class.to(device))


class TextEncoder:
    """The text side of a CLIP model.

    Args:
        model: has ``encode_text(tokens) -> (B, E)``.
        tokenizer: prompts to tokens: a (B, context) int64 tensor, or a dict of such for ``encode_text``.
        dim: E.
        padding: the token that fills up short prompts; where it is None, nobody is warned of long ones.
        precision: "fp32", "fp16" or "bf16": part of the cache's key.
        cached: keep features on disk (see :class:`TextCache`).
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[[list[str]], Any],
        *,
        dim: int,
        padding: int | None = None,
        precision: str = "fp32",
        cached: bool = True,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.dim, self.padding, self.precision = dim, padding, precision
        self.cached = cached
        self._known: dict[str, Tensor] = {}
        self._cache: TextCache | None = None

    def encode(self, classes: ClassWords, progress: bool = False) -> TextFeatures:
        """Features of all words of ``classes``. Words seen before are not encoded again.

        Args:
            classes: classes and words.
            progress: show a progress bar where words must be encoded.

        Raises:
            UserError: a word's feature is not finite (damaged weights).
        """
        missing = [word for word in dict.fromkeys(classes.words) if word not in self._known]
        if missing and self.cached:
            self._cache = self._cache or TextCache(self._key())
            found = {word: self._cache.get(word, self.dim) for word in missing}
            self._known |= {word: feature for word, feature in found.items() if feature is not None}
            missing = [word for word in missing if word not in self._known]
        shown = progress and bool(missing)
        with tqdm(total=len(missing), desc="text features", unit="word", disable=not shown, leave=False) as bar:
            for start in range(0, len(missing), WORDS_PER_BATCH):
                batch = missing[start : start + WORDS_PER_BATCH]
                for word, feature in zip(batch, self._encode(batch), strict=True):
                    self._known[word] = feature
                    if self._cache is not None:
                        self._cache.put(word, feature)
                bar.update(len(batch))
        features = torch.stack([self._known[word] for word in classes.words])
        return TextFeatures(classes, features, torch.tensor(classes.word_to_class))

    @torch.inference_mode()
    def _encode(self, words: list[str]) -> list[Tensor]:
        """The (E,) float32 feature of each word (method: each prompt normalised, averaged, normalised again)."""
        tokens = self.tokenizer([template(word) for word in words for template in TEMPLATES])
        device = next(self.model.parameters()).device
        named = tokens if isinstance(tokens, dict) else {"input_ids": tokens}
        named = {name: value.to(device) for name, value in named.items()}
        embedded = self.model.encode_text(named if isinstance(tokens, dict) else named["input_ids"]).float()
        each = F.normalize(embedded, dim=-1).unflatten(0, (len(words), len(TEMPLATES)))
        features = F.normalize(each.mean(dim=1), dim=-1).cpu()
        ends = named["input_ids"][:, -1].view(len(words), len(TEMPLATES))
        for word, feature, end in zip(words, features, ends, strict=True):
            if not feature.isfinite().all():
                raise UserError(f"the text feature of {word!r} is not finite; the weights are damaged")
            if self.padding is not None and (end != self.padding).any():
                context = named["input_ids"].shape[1]
                warnings.warn(f"{word[:60]!r} is too long for {context} tokens and may be cut", stacklevel=4)
        return [feature.clone() for feature in features]

    def _key(self) -> str:
        """Hash of everything but the word that changes a feature: settings, versions, and the text tower's weights."""
        image = ("visual", "vision_model")
        facts = {
            "templates": [template("{}") for template in TEMPLATES],
            "precision": self.precision,
            "device": next(self.model.parameters()).device.type,
            "open_clip": open_clip.__version__,
            "torch": torch.__version__,
            # The modules' printout names the activation.
            "layout": repr([module for name, module in self.model.named_children() if name not in image]),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for name, tensor in self.model.state_dict().items():
            if not name.startswith(image):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

"""Words to text features: 80 prompts a word, encoded, normalised, averaged, normalised again."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from clearclip.errors import UserError
from clearclip.text.cache import TextCache
from clearclip.text.words import ClassWords

#: OpenAI's 80 ImageNet prompt templates.
TEMPLATES: tuple[Callable[[str], str], ...] = open_clip.OPENAI_IMAGENET_TEMPLATES


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
        tokenizer: prompts to tokens: an (B, context) int64 tensor, or a dict of such for ``encode_text``.
        context_length: tokens a prompt may have; longer ones are cut by the tokenizer (with a warning here).
        dim: E.
        precision: "fp32", "fp16" or "bf16": part of the cache's key.
        cached: keep features on disk (see :class:`TextCache`).
        batch_size: prompts per forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[[list[str]], Any],
        *,
        dim: int,
        count_tokens: Callable[[str], int] | None = None,
        context_length: int = 77,
        precision: str = "fp32",
        cached: bool = True,
        batch_size: int = 256,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.count_tokens = count_tokens
        self.context_length = context_length
        self.dim = dim
        self.precision = precision
        self.cached = cached
        self.batch_size = batch_size
        self._known: dict[str, Tensor] = {}
        self._cache: TextCache | None = None

    def encode(self, classes: ClassWords, progress: bool = False) -> TextFeatures:
        """Features of all words of ``classes`` (spec: section 2). Words seen before are not encoded again.

        Args:
            classes: classes and words.
            progress: show a progress bar where words must be encoded.

        Raises:
            UserError: a word's feature is not finite (damaged weights).
        """
        words = classes.words
        if self.cached and any(word not in self._known for word in words):
            self._read_cache(words)
        missing = [word for word in dict.fromkeys(words) if word not in self._known]
        if missing:
            self._encode_missing(missing, progress)
        features = torch.stack([self._known[word] for word in words])
        return TextFeatures(classes, features, torch.tensor(classes.word_to_class))

    def forget(self) -> None:
        """Drop the features in memory; those on disk stay."""
        self._known.clear()
        self._cache = None

    def _read_cache(self, words: Sequence[str]) -> None:
        if self._cache is None:
            self._cache = TextCache(self._key())
        for word in words:
            if word not in self._known and (feature := self._cache.get(word, self.dim)) is not None:
                self._known[word] = feature

    @torch.inference_mode()
    def _encode_missing(self, words: list[str], progress: bool) -> None:
        self._warn_of_long(words)
        per_batch = max(1, self.batch_size // len(TEMPLATES))
        bar = tqdm(total=len(words), desc="text features", unit="word", disable=not progress, leave=False)
        with bar:
            for start in range(0, len(words), per_batch):
                batch = words[start : start + per_batch]
                prompts = [template(word) for word in batch for template in TEMPLATES]
                embedded = self.model.encode_text(self._to_device(self.tokenizer(prompts))).float()
                each = F.normalize(embedded, dim=-1).unflatten(0, (len(batch), len(TEMPLATES)))
                for word, feature in zip(batch, F.normalize(each.mean(dim=1), dim=-1).cpu(), strict=True):
                    if not feature.isfinite().all():
                        raise UserError(f"the text feature of {word!r} is not finite; the weights are damaged")
                    self._known[word] = feature.clone()
                    if self._cache is not None:
                        self._cache.put(word, feature)
                bar.update(len(batch))

    def _to_device(self, tokens: Any) -> Any:
        device = next(self.model.parameters()).device
        if isinstance(tokens, Tensor):
            return tokens.to(device)
        return {name: value.to(device) for name, value in tokens.items()}

    def _warn_of_long(self, words: Sequence[str]) -> None:
        if self.count_tokens is None:
            return
        longest_template = max(self.count_tokens(template("")) for template in TEMPLATES)
        for word in words:
            if self.count_tokens(word) + longest_template > self.context_length:
                shown = word if len(word) <= 60 else word[:57] + "..."
                warnings.warn(
                    f"{shown!r} is too long for the text tower's {self.context_length} tokens and will be cut",
                    stacklevel=4,
                )

    def _key(self) -> str:
        """Hash of everything but the word that changes a feature."""
        digest = hashlib.sha256()
        facts = {
            "templates": [template("{}") for template in TEMPLATES],
            "precision": self.precision,
            "device": next(self.model.parameters()).device.type,
            "open_clip": open_clip.__version__,
            "torch": torch.__version__,
            "context_length": self.context_length,
            "layout": repr(self.text_modules()),
        }
        digest.update(json.dumps(facts, sort_keys=True).encode())
        for name, tensor in self.text_state().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

    def text_modules(self) -> list[nn.Module]:
        """The modules of the text tower (their printout names the activation)."""
        return [module for name, module in self.model.named_children() if name not in ("visual", "vision_model")]

    def text_state(self) -> dict[str, Tensor]:
        """The text tower's weights: everything in the model but the image tower."""
        state = self.model.state_dict()
        return {name: value for name, value in state.items() if not name.startswith(("visual", "vision_model"))}

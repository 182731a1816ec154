"""Words to text features: 80 prompts a word, encoded, normalised, averaged, normalised again."""

from __future__ import annotations

import threading
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
from clearclip.text.prompt_cutting import CuttingEncoder
from clearclip.text.words import ClassWords
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import code_digest, digest, plain, versions

#: OpenAI's 80 ImageNet prompt templates.
TEMPLATES: tuple[Callable[[str], str], ...] = open_clip.OPENAI_IMAGENET_TEMPLATES
WORDS_PER_BATCH = 12  # so that there are prompts of like length
PROMPTS_PER_BATCH = 240
_ONE_AT_A_TIME = threading.Lock()  # a tower whose prompts are cut has shorter positional embeddings for a moment


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
        tokenizer: prompts to tokens: a (B, context) int64 tensor, or a dict of such for ``encode_text``, whose
            ``attention_mask`` hides the padding.
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
        """Features of all words of ``classes``, with a progress bar if wanted. No word is encoded twice.

        Raises:
            UserError: a word's feature is not finite (damaged weights).
        """
        missing = [word for word in dict.fromkeys(classes.words) if word not in self._known]
        if missing and self.cached:
            self._cache = self._cache or TextCache(self.fingerprint())
            # What the tokenizer makes of a word is in the name of its file: its vocabulary and settings may change.
            named = {word: f"{word} {self._tokens([word])['input_ids'].tolist()}" for word in missing}
            found = {word: self._cache.get(name, self.dim) for word, name in named.items()}
            self._known |= {word: feature for word, feature in found.items() if feature is not None}
            missing = [word for word in missing if word not in self._known]
        count = len(missing) * len(TEMPLATES)
        with tqdm(
            total=count, desc="text features", unit="prompt", disable=not (progress and count), leave=False
        ) as bar:
            for start in range(0, len(missing), WORDS_PER_BATCH):
                batch = missing[start : start + WORDS_PER_BATCH]
                for word, feature in zip(batch, self._encode(batch, bar), strict=True):
                    self._known[word] = feature
                    if self._cache is not None:
                        self._cache.put(named[word], feature)
        features = torch.stack([self._known[word] for word in classes.words])
        return TextFeatures(classes, features, torch.tensor(classes.word_to_class))

    def fingerprint(self) -> str:
        """Hash of everything but the word that changes a feature: weights, configuration, code, templates, versions."""
        modules = {name: part for name, part in self.model.named_children() if name not in ("visual", "vision_model")}
        model = {"class": type(self.model), **vars(self.model), "_modules": modules}
        templates = self._tokens([template(" É_t. Ünit's &amp; 1,2 ") for template in TEMPLATES])
        code, device = code_digest("text", "backbones"), next(self.model.parameters()).device.type
        return digest(plain([type(self), model, templates, self.precision, device, versions(), code]))

    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        tokens = self.tokenizer(texts)
        return tokens if isinstance(tokens, dict) else {"input_ids": tokens}

    @torch.inference_mode()
    def _encode(self, words: list[str], bar: tqdm) -> list[Tensor]:
        """The (E,) float32 feature of each word (method: each prompt normalised, averaged, normalised again)."""
        tokens = self._tokens([template(word) for word in words for template in TEMPLATES])
        tokens = {name: value.to(next(self.model.parameters()).device) for name, value in tokens.items()}
        encoder = CuttingEncoder(self.model)
        lengths = encoder.lengths(tokens)
        embedded = torch.empty(len(lengths), self.dim, device=lengths.device)
        for length in lengths.unique().tolist():
            for rows in (lengths == length).nonzero().flatten().split(PROMPTS_PER_BATCH):
                with _ONE_AT_A_TIME:
                    embedded[rows] = encoder.encode({name: ids[rows] for name, ids in tokens.items()}, length).float()
                bar.update(len(rows))
        each = F.normalize(embedded, dim=-1).unflatten(0, (len(words), len(TEMPLATES)))
        features = F.normalize(each.mean(dim=1), dim=-1).cpu()
        ends = tokens["input_ids"][:, -1].view(len(words), len(TEMPLATES))
        for word, feature, end in zip(words, features, ends, strict=True):
            if not feature.isfinite().all():
                raise UserError(f"the text feature of {word!r} is not finite; the weights are damaged")
            if self.padding is not None and (end != self.padding).any():
                context = tokens["input_ids"].shape[1]
                warnings.warn(f"{word[:60]!r} is too long for {context} tokens and may be cut", stacklevel=4)
        return [feature.clone() for feature in features]

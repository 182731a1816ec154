"""Words to text features: each word in 80 prompts, encoded, normalised, averaged, normalised again."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from clearclip.text.cache import TextCache
from clearclip.text.prompt_cutting import CuttingEncoder
from clearclip.text.templates import read_templates
from clearclip.text.words import ClassWords
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest
from clearclip.utils.installed_code import package_versions, source_digest
from clearclip.utils.plain_data import plain_data

Template = Callable[[str], str]
#: OpenAI's 80 ImageNet prompt templates.
TEMPLATES: tuple[Template, ...] = read_templates("imagenet80")
#: So many words at a time, so that there are prompts of like length to be encoded together.
WORDS_PER_BATCH = 12
#: So many prompts at a time, for the memory's sake.
PROMPTS_PER_BATCH = 240
#: Held while a tokenizer runs and while a cache is opened: Hugging Face's fast tokenizers fail with "Already borrowed"
#: where two threads set their padding at once.
_TOKENIZER_LOCK = threading.Lock()


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


def mean_direction(embeddings: Tensor) -> Tensor:
    """The feature of each word from its prompts (words, templates, E): normalised, averaged, normalised: (words, E)."""
    return F.normalize(F.normalize(embeddings, dim=-1).mean(dim=1), dim=-1)


class TextEncoder:
    """The text side of a CLIP model. Several threads may call :meth:`encode` at once.

    Args:
        model: has ``encode_text(tokens) -> (B, E)``.
        tokenizer: prompts to tokens: a (B, context) int64 tensor, or a dict of such for ``encode_text``, whose
            ``attention_mask`` hides the padding.
        dim: E.
        padding: the token that fills up short prompts; where it is None, nobody is warned of long ones.
        precision: "fp32", "fp16" or "bf16": part of the cache's key.
        cached: keep features on disk (see :class:`TextCache`).
        templates: make the prompts of a word.
        combine: embeddings of prompts, (words, templates, any width) float32, to features of words, (words, E).
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
        templates: Sequence[Template] = TEMPLATES,
        combine: Callable[[Tensor], Tensor] = mean_direction,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.dim = dim
        self.padding = padding
        self.precision = precision
        self.cached = cached
        self.templates = tuple(templates)
        self.combine = combine
        self._features: dict[str, Tensor] = {}
        self._cache: TextCache | None = None

    def encode(self, classes: ClassWords, progress: bool = False) -> TextFeatures:
        """Features of all words of ``classes``, with a progress bar if wanted. No word is encoded twice.

        Raises:
            UserError: a word's feature is not finite (damaged weights).
        """
        new_words = [word for word in dict.fromkeys(classes.words) if word not in self._features]
        if new_words and self.cached:
            new_words = self._read_cache(new_words)
        prompt_count = len(new_words) * len(self.templates)
        is_hidden = not progress or prompt_count == 0
        with tqdm(total=prompt_count, desc="text features", unit="prompt", disable=is_hidden, leave=False) as bar:
            for start in range(0, len(new_words), WORDS_PER_BATCH):
                batch = new_words[start : start + WORDS_PER_BATCH]
                for word, feature in zip(batch, self._encode(batch, bar), strict=True):
                    # Another thread may have been first; then all have its feature, to the last bit.
                    self._features.setdefault(word, feature)
                    if self._cache is not None:
                        self._cache.put(self._cache_name(word), feature)
        features = torch.stack([self._features[word] for word in classes.words])
        return TextFeatures(classes, features, torch.tensor(classes.word_to_class))

    def _read_cache(self, words: Sequence[str]) -> list[str]:
        """Take what is on disk, and return the words that are not."""
        if self._cache is None:
            # Outside of the lock, which the fingerprint takes itself for its prompts.
            fingerprint = self.fingerprint()
            with _TOKENIZER_LOCK:
                self._cache = self._cache or TextCache(fingerprint)
        absent = []
        for word in words:
            feature = self._cache.get(self._cache_name(word), self.dim)
            if feature is None:
                absent.append(word)
            else:
                self._features.setdefault(word, feature)
        return absent

    def _cache_name(self, word: str) -> str:
        """What a word's file is named by. The tokenizer's vocabulary and settings may change, so its tokens belong to
        it.
        """
        return f"{word} {self._tokens([word])['input_ids'].tolist()}"

    def fingerprint(self) -> str:
        """Hash of everything but the word that changes a feature: weights, configuration, code, templates, versions."""
        # Without the image tower, so that all methods and precisions of images share a cache.
        modules = dict(self.model.named_children())
        for image_tower in ("visual", "vision_model"):
            modules.pop(image_tower, None)
        model = {"class": type(self.model), **vars(self.model), "_modules": modules}
        # Tokens of odd texts say how the tokenizer cleans and splits, whatever class it is.
        prompts = self._tokens([template(" É_t. Ünit's &amp; 1,2 ") for template in self.templates])
        device = next(self.model.parameters()).device.type
        code = source_digest("text", "backbones")
        return digest(
            plain_data([type(self), model, prompts, self.combine, self.precision, device, package_versions(), code]),
        )

    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        with _TOKENIZER_LOCK:
            tokens = self.tokenizer(texts)
        return tokens if isinstance(tokens, dict) else {"input_ids": tokens}

    @torch.inference_mode()
    def _encode(self, words: list[str], bar: tqdm) -> list[Tensor]:
        """The (E,) float32 feature of each word."""
        # All prompts of the first word, then all of the second.
        tokens = self._tokens([template(word) for word in words for template in self.templates])
        device = next(self.model.parameters()).device
        tokens = {name: value.to(device) for name, value in tokens.items()}
        embeddings = self._embeddings(tokens, bar).unflatten(0, (len(words), len(self.templates)))
        features = self.combine(embeddings).cpu()
        last_tokens = tokens["input_ids"][:, -1].view(len(words), len(self.templates))
        for word, feature, last in zip(words, features, last_tokens, strict=True):
            if not feature.isfinite().all():
                raise UserError(f"the text feature of {word!r} is not finite; the weights are damaged")
            if self.padding is not None and (last != self.padding).any():
                context = tokens["input_ids"].shape[1]
                warnings.warn(f"{word[:60]!r} is too long for {context} tokens and may be cut", stacklevel=4)
        # Clones, since a view would keep the features of the whole batch in memory.
        return [feature.clone() for feature in features]

    def _embeddings(self, tokens: dict[str, Tensor], bar: tqdm) -> Tensor:
        """Embeddings of prompts, (prompts, width) float32. Those of the same length are encoded together, cut to it."""
        encoder = CuttingEncoder(self.model)
        lengths = encoder.lengths(tokens)
        order, batches = [], []
        for length in lengths.unique().tolist():
            for rows in (lengths == length).nonzero().flatten().split(PROMPTS_PER_BATCH):
                batch = {name: ids[rows] for name, ids in tokens.items()}
                batches.append(encoder.encode(batch, length).float())
                order.append(rows)
                bar.update(len(rows))
        embeddings = torch.cat(batches)
        # Back into the order of the prompts.
        return torch.empty_like(embeddings).index_copy_(0, torch.cat(order), embeddings)

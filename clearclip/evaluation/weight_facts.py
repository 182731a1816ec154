"""Whose weights a model has, why we think so, and their bytes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch

from clearclip.backbones.dino_tower import SECOND_ENCODERS
from clearclip.checkpoint_names import BUNDLED_SHA256
from clearclip.methods import Method
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest, hash_file, plain_data
from clearclip.utils.hub import cached_only, fetch
from clearclip.weights import CHECKPOINTS, RANDOM, Weights, choose_weights, find_checkpoint, model_folder, read_json


@dataclass(frozen=True)
class LoadedModel:
    """A model, and what it was when it was loaded.

    Attributes:
        model: the model.
        settings: by which it was loaded.
        tensors: the digest of each of its tensors right after loading; None where somebody else loaded it.
        facts: of its weights.
    """

    model: ClearCLIP
    settings: ModelSettings
    tensors: Mapping[str, str] | None
    facts: dict[str, Any]

    @classmethod
    def load(cls, settings: ModelSettings) -> LoadedModel:
        """Load the model that settings describe.

        Raises:
            UserError: it cannot be loaded, or its files were written in the meantime.
        """
        # Hashed before and after, so that the hash is of what was read in between.
        before = weights_facts(settings)
        model = ClearCLIP.from_settings(settings)
        tensors = tensor_digests(model)
        facts = weights_facts(settings, tensors)
        if before is not None and before != facts:
            raise UserError(f"the files of {model.label} changed while they were read; start again")
        return cls(model, settings, tensors, facts)

    @classmethod
    def given(cls, model: ClearCLIP, settings: ModelSettings) -> LoadedModel:
        """A model that somebody else loaded, and may have changed: it is known by what it holds now."""
        facts = weights_facts(settings, {})
        return cls(model, settings, None, {**facts, "origin": "in memory", "bytes": digest(tensor_digests(model))})

    def changed(self) -> list[str]:
        """The names of tensors that are no longer what was loaded."""
        now = tensor_digests(self.model)
        return [name for name, before in (self.tensors or {}).items() if now.get(name) != before]


def tensor_digests(model: torch.nn.Module) -> dict[str, str]:
    """The digest of every parameter and buffer, those that no file holds among them."""
    return {name: digest(plain_data(tensor)) for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def weights_facts(settings: ModelSettings, tensors: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """The facts of a model's weights.

    ``origin`` is "published" for what this program fetched by its tag, or whose bytes are known (OpenAI's addresses
    carry a SHA-256; the miniature comes with the package), "stated" for a file whose tag the user names
    (``pretrained_tag``), else "file", "repository" or "random". ``rows`` names the rows of tables whose weights,
    activation and normalisation these are.

    Args:
        settings: which weights.
        tensors: digests of what was loaded, of which weights that no file holds are known.

    Returns:
        None where they are not on this machine and nothing is loaded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when the weights are loaded
        weights = settings.chosen_weights
    files = local_files(weights)
    if not files and tensors is None:
        return None
    origin, tag = _origin(weights, files, settings.pretrained_tag)
    facts: dict[str, Any] = {
        "clip_type": None,
        "vit_type": None,
        "model": weights.bundled_name or weights.model_name.partition("local-dir:")[0] or "local-dir",
        "tag": tag,
        "origin": origin,
        "activation": _has_quick_gelu(weights),
        "bytes": digest([hash_file(path) for path in files]) if files else digest(dict(tensors)),
        "rows": [],
    }
    # The same weights with another activation or normalisation are no row's.
    if origin in ("published", "stated") and facts["activation"] == _trained_with_quick_gelu(weights, tag):
        facts["rows"] = rows_of_weights(weights.model_name, tag, settings.chosen_normalization)
    clip_rows = [row for row in facts["rows"] if tuple(row) in CHECKPOINTS]
    if clip_rows:
        facts["clip_type"], facts["vit_type"] = clip_rows[0]
    return facts


def rows_of_weights(model_name: str, tag: str | None, normalization: str) -> list[list[str]]:
    """The rows of tables that have these weights: those of the paper normalise with OpenAI's mean and std, those of
    backbones with the weights' own.
    """
    if normalization == "pretrained":
        return [] if tag is None else [[model_name, tag]]
    return [list(row) for row, checkpoint in CHECKPOINTS.items() if checkpoint == (model_name, tag)]


def _has_quick_gelu(weights: Weights) -> bool | None:
    """The activation in use; None where the model's files have none to be chosen."""
    if weights.quick_gelu is not None:
        return weights.quick_gelu
    if ":" in weights.model_name:
        with suppress(UserError), cached_only():
            configuration = model_folder(weights.model_name) / "open_clip_config.json"
            return bool(read_json(configuration).get("model_cfg", {}).get("quick_gelu"))
    return bool((open_clip.get_model_config(weights.model_name) or {}).get("quick_gelu"))


def _trained_with_quick_gelu(weights: Weights, tag: str | None) -> bool | None:
    """The activation that these weights were trained with."""
    trained = Weights(weights.model_name, None)
    if ":" not in weights.model_name and weights.model_name in open_clip.list_models():
        trained = choose_weights(model_name=weights.model_name, pretrained=tag)
    return _has_quick_gelu(trained)


def _origin(weights: Weights, files: Sequence[Path], stated: str | None) -> tuple[str, str | None]:
    """Where weights are from, and their tag."""
    name, pretrained = weights.model_name, weights.pretrained
    if pretrained == RANDOM:
        return "random", None
    if pretrained is None:
        if BUNDLED_SHA256.get(weights.bundled_name) in map(hash_file, files):
            return "published", None
        return ("repository" if name.startswith("hf-hub:") else "file"), None
    if pretrained == weights.tag or open_clip.get_pretrained_cfg(name, pretrained):  # whatever files there are
        return "published", weights.tag
    if not Path(pretrained).exists():
        return "repository", None
    for tag in open_clip.list_pretrained_tags_by_model(name):
        sha256 = re.search(r"/([0-9a-f]{64})/", open_clip.get_pretrained_cfg(name, tag).get("url") or "")
        if sha256 and [sha256[1]] == [hash_file(path) for path in files]:
            return "published", tag
    return ("stated", stated) if stated else ("file", None)


def local_files(weights: Weights) -> list[Path]:
    """The files on this machine that weights and their configuration are read from, without a download; empty where
    there are none, or where they are random.
    """
    name, pretrained = weights.model_name, weights.pretrained
    with suppress(UserError), cached_only():
        if name.startswith(("BLIP", "DINO")):
            path = Path(pretrained)
            if pretrained == weights.tag:
                path = Path(torch.hub.get_dir()) / "checkpoints" / f"{pretrained}.pth"
            candidates = sorted(path.iterdir()) if path.is_dir() else [path]
            return [candidate for candidate in candidates if candidate.is_file()]
        files = find_checkpoint(weights)
        beside = sorted(model_folder(name).iterdir()) if ":" in name and files else []
        described = [path for path in beside if path.suffix in (".json", ".txt", ".model") and path.is_file()]
        return [*files, *(path for path in described if path not in files)]
    return []


def second_encoder_facts(method: Method) -> str | None:
    """The hash of a second encoder's published weights, where they are on this machine."""
    if "second encoder" in method.needs and method.guide in SECOND_ENCODERS and method.guide_weights is None:
        with suppress(UserError), cached_only():
            repository = f"timm/{SECOND_ENCODERS[method.guide]}"
            return hash_file(fetch(repository, "model.safetensors", "pytorch_model.bin", remedy=""))
    return None

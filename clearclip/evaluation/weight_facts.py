"""Whose weights a model has, how we know, and their bytes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import open_clip
import torch

from clearclip.backbones.dino_tower import SECOND_ENCODERS
from clearclip.checkpoint_names import BUNDLED_SHA256
from clearclip.evaluation.own_methods import nested_methods
from clearclip.methods import Method
from clearclip.model_settings import ModelSettings
from clearclip.results.matching import PUBLISHED_ORIGINS
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest, hash_file
from clearclip.utils.hub import cached_only, fetch
from clearclip.weights import CHECKPOINTS, RANDOM, Weights, choose_weights, find_checkpoint, model_folder, read_json


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
    hashes = [hash_file(path) for path in local_files(weights)]
    if not hashes and tensors is None:
        return None
    origin, tag = _origin(weights, hashes, settings.pretrained_tag)
    # The same weights with another activation or normalisation are no row's.
    rows: list[list[str]] = []
    if origin in PUBLISHED_ORIGINS and has_quick_gelu(weights) == _trained_with_quick_gelu(weights.model_name, tag):
        rows = _rows(weights.model_name, tag, settings.chosen_normalization)
    clip_type, vit_type = next((row for row in rows if tuple(row) in CHECKPOINTS), (None, None))
    return {
        "clip_type": clip_type,
        "vit_type": vit_type,
        "model": _name(weights),
        "tag": tag,
        "origin": origin,
        "activation": has_quick_gelu(weights),
        "bytes": digest(hashes or dict(tensors)),
        "rows": rows,
    }


def _name(weights: Weights) -> str:
    """The model's name, without a path of this machine."""
    if weights.bundled_name:
        return weights.bundled_name
    if weights.model_name.startswith("local-dir:"):
        return "local-dir"
    return weights.model_name


def _origin(weights: Weights, hashes: Sequence[str], stated_tag: str | None) -> tuple[str, str | None]:
    """Where weights are from, and their tag."""
    name, pretrained = weights.model_name, weights.pretrained
    if pretrained == RANDOM:
        return "random", None
    if pretrained is None:
        if BUNDLED_SHA256.get(weights.bundled_name) in hashes:
            return "published", None
        return ("repository" if name.startswith("hf-hub:") else "file"), None
    # A tag is a tag, whatever files there are.
    if pretrained == weights.tag or open_clip.get_pretrained_cfg(name, pretrained):
        return "published", weights.tag
    if not Path(pretrained).exists():
        return "repository", None
    for tag in open_clip.list_pretrained_tags_by_model(name):
        address = open_clip.get_pretrained_cfg(name, tag).get("url") or ""
        sha256 = re.search(r"/([0-9a-f]{64})/", address)
        if sha256 and list(hashes) == [sha256[1]]:
            return "published", tag
    return ("stated", stated_tag) if stated_tag else ("file", None)


def _rows(model_name: str, tag: str | None, normalization: str) -> list[list[str]]:
    """The rows of tables that have these weights: those of the paper normalise with OpenAI's mean and std, those of
    backbones with the weights' own.
    """
    if normalization == "pretrained":
        return [] if tag is None else [[model_name, tag]]
    return [list(row) for row, checkpoint in CHECKPOINTS.items() if checkpoint == (model_name, tag)]


def has_quick_gelu(weights: Weights) -> bool:
    """The activation in use: the one that was chosen, or that of the model's configuration."""
    if weights.quick_gelu is not None:
        return weights.quick_gelu
    if ":" not in weights.model_name:
        return bool((open_clip.get_model_config(weights.model_name) or {}).get("quick_gelu"))
    with suppress(UserError), cached_only():
        configuration = read_json(model_folder(weights.model_name) / "open_clip_config.json")
        return bool(configuration.get("model_cfg", {}).get("quick_gelu"))
    return False


def _trained_with_quick_gelu(model_name: str, tag: str | None) -> bool:
    """The activation that these weights were trained with."""
    if model_name in open_clip.list_models():
        return has_quick_gelu(choose_weights(model_name=model_name, pretrained=tag))
    return has_quick_gelu(Weights(model_name, None))


def local_files(weights: Weights) -> list[Path]:
    """The files on this machine that weights and their configuration are read from, without a download; empty where
    there are none, or where they are random.
    """
    name, pretrained = weights.model_name, weights.pretrained
    files: list[Path] = []
    with suppress(UserError), cached_only():
        if name.startswith(("BLIP", "DINO")):
            path = Path(pretrained)
            if pretrained == weights.tag:
                path = Path(torch.hub.get_dir()) / "checkpoints" / f"{pretrained}.pth"
            files = sorted(path.iterdir()) if path.is_dir() else [path]
        else:
            files = list(find_checkpoint(weights))
            if files and ":" in name:
                beside = sorted(model_folder(name).iterdir())
                files += [path for path in beside if path.suffix in (".json", ".txt", ".model")]
    return [path for path in dict.fromkeys(files) if path.is_file()]


def second_encoder_facts(method: Method, model_options: Mapping[str, Mapping[str, Any]]) -> str | None:
    """A hash of the published weights of a method's second encoder, where they are on this machine.

    Args:
        method: as it was asked for.
        model_options: the model's own values of options that are None: the miniature has a second encoder of its own.
    """
    hashes = []
    for member in nested_methods(method.completed(model_options)):
        if "second encoder" in member.needs and member.guide_weights is None and member.guide in SECOND_ENCODERS:
            with suppress(UserError), cached_only():
                repository = f"timm/{SECOND_ENCODERS[member.guide]}"
                hashes.append(hash_file(fetch(repository, "model.safetensors", "pytorch_model.bin", remedy="")))
    return digest(hashes) if hashes else None

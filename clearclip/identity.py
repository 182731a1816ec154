"""Which weights a result belongs to: before they are loaded, and by their bytes afterwards."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from clearclip.checkpoints import CHECKPOINTS, DEFAULT, choose_weights
from clearclip.settings import ModelSettings


def checkpoint_identity(settings: ModelSettings) -> str:
    """The published tag that a model's weights have, "random", or a short hash of the file's bytes.

    A tag says which weights are meant wherever they come from; a local file without one is known by its content.

    Raises:
        UserError: a model or tag that does not exist.
    """
    pretrained = None if settings.pretrained is None else os.fspath(settings.pretrained)
    if pretrained == "random":
        return pretrained
    if settings.clip_type in ("BLIP", "DINO"):
        if pretrained in (None, DEFAULT):
            return DEFAULT
        return hash_files([Path(pretrained)]) if Path(pretrained).is_file() else pretrained
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when the weights are loaded
        weights = choose_weights(
            settings.clip_type, settings.vit_type, settings.model_name, settings.pretrained, settings.quick_gelu
        )
    if weights.tag is not None:
        return weights.tag
    if weights.pretrained is not None:
        return hash_files([Path(weights.pretrained)])
    schema, _, folder = weights.model_name.partition(":")
    files = [*Path(folder).glob("*.safetensors"), *Path(folder).glob("*.bin")] if schema == "local-dir" else []
    return hash_files(sorted(files)) or DEFAULT


def published_checkpoint(clip_type: str, vit_type: str) -> str:
    """The :func:`checkpoint_identity` of a row of the published tables."""
    if (clip_type, vit_type) in CHECKPOINTS and clip_type != "Miniature":
        return CHECKPOINTS[clip_type, vit_type][1]
    return checkpoint_identity(ModelSettings(clip_type=clip_type, vit_type=vit_type))


def hash_files(files: Iterable[Path]) -> str:
    """A short hash of the bytes of those files that exist; empty for none."""
    digest, found = hashlib.blake2b(digest_size=6), False
    for path in files:
        if path.is_file():
            found = True
            with open(path, "rb") as file:
                while chunk := file.read(1 << 24):
                    digest.update(chunk)
    return digest.hexdigest() if found else ""


def weights_identity(*towers: nn.Module) -> str:
    """A short hash of the bytes of all weights, the same whatever the number of threads and the device."""
    digest = hashlib.blake2b(digest_size=6)
    for tower in towers:
        for name, tensor in sorted(tower.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

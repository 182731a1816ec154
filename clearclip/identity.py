"""Which weights a result belongs to: before they are loaded, and by their bytes afterwards."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from clearclip.settings import ModelSettings
from clearclip.weights import choose_weights, known_tag_of


def checkpoint_identity(settings: ModelSettings) -> str:
    """The tag of published weights, "random", or a short hash of the bytes of a file or folder.

    A file counts as published where it has the name under which it was published. A repository is known by its name.

    Raises:
        UserError: a model or tag that does not exist.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when the weights are loaded
        names = ("clip_type", "vit_type", "model_name", "pretrained", "quick_gelu")
        weights = choose_weights(*(getattr(settings, name) for name in names))
    pretrained = weights.pretrained or weights.model_name.removeprefix("local-dir:")
    published = weights.tag if Path(pretrained).stem == weights.tag else known_tag_of(weights.model_name, pretrained)
    path = Path(pretrained)
    files = [path] if path.is_file() else sorted([*path.glob("*.safetensors"), *path.glob("*.bin")])
    return published or hash_files(files) or pretrained


def published_checkpoint(clip_type: str, vit_type: str) -> str:
    """The :func:`checkpoint_identity` of a row of the published tables."""
    return checkpoint_identity(ModelSettings(clip_type=clip_type, vit_type=vit_type))


def hash_files(files: Sequence[Path]) -> str:
    """A short hash of the bytes of these files; empty for none. A file that has not changed is read once."""
    stats = [(path, path.stat()) for path in files]
    return _hash_files(tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)) if files else ""


@lru_cache(maxsize=64)
def _hash_files(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for path, _, _ in files:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()


def weights_identity(*towers: nn.Module) -> str:
    """A short hash of the bytes of all weights, the same whatever the number of threads and the device."""
    digest = hashlib.blake2b(digest_size=6)
    for tower in towers:
        for name, tensor in sorted(tower.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

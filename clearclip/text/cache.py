"""Text features on disk: a small safetensors file per word and model, so that words are encoded once in a lifetime."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clearclip.utils.files import write_atomically


def default_cache_dir() -> Path:
    """``$CLEARCLIP_CACHE``, or ``clearclip`` in the user's cache folder."""
    if os.environ.get("CLEARCLIP_CACHE"):
        return Path(os.environ["CLEARCLIP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clearclip"


class TextCache:
    """Features of words, one file each, in a folder per ``key``. Several processes may read and write at once.

    A file that cannot be read counts as missing. A folder that cannot be written costs the speed, not the result.

    Args:
        key: everything that changes a feature beside the word itself (weights, templates, precision, …), hashed.
        folder: where the files are; default :func:`default_cache_dir`.
    """

    def __init__(self, key: str, folder: Path | None = None):
        self.folder = (folder or default_cache_dir()) / "text" / key

    def path(self, word: str) -> Path:
        """The file for ``word``."""
        return self.folder / f"{hashlib.sha256(word.encode()).hexdigest()[:32]}.safetensors"

    def get(self, word: str, dim: int) -> Tensor | None:
        """The (dim,) float32 feature of ``word``, or None where there is none, or none that is whole."""
        try:
            feature = load_file(self.path(word))["feature"]
        except (OSError, SafetensorError, KeyError):
            return None
        whole = feature.shape == (dim,) and feature.dtype == torch.float32 and bool(feature.isfinite().all())
        return feature if whole else None

    def put(self, word: str, feature: Tensor) -> None:
        """Keep the (dim,) feature of ``word``."""
        state = {"feature": feature.float().cpu().contiguous()}
        with suppress(OSError):
            write_atomically(self.path(word), lambda temporary: save_file(state, temporary, metadata={"word": word}))

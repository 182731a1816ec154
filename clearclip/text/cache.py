"""Text features on disk: a small safetensors file per word and model, so that words are encoded once in a lifetime."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clearclip.utils.files import write_atomically


def default_cache_dir() -> Path:
    """``$CLEARCLIP_CACHE``, or ``clearclip`` in the user's cache folder."""
    if os.environ.get("CLEARCLIP_CACHE"):
        return Path(os.environ["CLEARCLIP_CACHE"])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clearclip"
    except RuntimeError:  # no home
        return Path(os.devnull)  # under which nothing can be kept


class TextCache:
    """Features of words, one file each, in a folder per ``key``. Several processes may read and write at once.

    A file counts only as it was written: its metadata name the word and hold a checksum. A folder that cannot be
    written, or a full disk, costs the speed, not the result.

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
        """The (dim,) float32 feature of ``word``, of length 1, or None where there is none, or none that is whole."""
        path = self.path(word)
        try:
            if not path.is_file():  # a pipe would wait for somebody to write
                return None
            with safe_open(path, "pt") as file:
                feature, metadata = file.get_tensor("feature").clone(), file.metadata()
        except (OSError, SafetensorError):
            return None
        is_unit_vector = feature.shape == (dim,) and feature.dtype == torch.float32 and abs(feature.norm() - 1) < 1e-3
        if is_unit_vector and metadata == self._metadata(word, feature):
            return feature
        return None

    def put(self, word: str, feature: Tensor) -> None:
        """Keep the (dim,) feature of ``word``."""
        feature = feature.float().cpu().contiguous()
        state, metadata = {"feature": feature}, self._metadata(word, feature)
        with suppress(OSError, SafetensorError):
            write_atomically(self.path(word), lambda temporary: save_file(state, temporary, metadata=metadata))

    def _metadata(self, word: str, feature: Tensor) -> dict[str, str]:
        # With the folder's name, a file that was copied from another model does not count.
        hashed = f"{self.folder.name} {word} ".encode() + feature.numpy().tobytes()
        return {"word": word, "checksum": hashlib.sha256(hashed).hexdigest()}

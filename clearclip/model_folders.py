"""Folders and repositories that hold a model: by what file each is described, and what that file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clearclip.dense_models import folder_family
from clearclip.utils.errors import UserError
from clearclip.utils.hub import fetch

#: What a model is described by: OpenCLIP's file, and that of a CLIPModel or SiglipModel of Hugging Face's.
OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG = "open_clip_config.json", "config.json"
#: The layout of models that are known by the names of their files.
DENSE_LAYOUT = "dense"
#: The usual names of a model's weights; with ``.index.json`` they are in shards.
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")
HUGGING_FACE_TYPES = ("clip", "siglip")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: the file cannot be read, or is none.
    """
    # Both errors: a text that is no UTF-8, and one that is no JSON, are ValueErrors.
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); download it again") from error
    if not isinstance(description, dict):
        raise UserError(f"{path} is no JSON object; download it again")
    return description


def layout(folder: Path) -> str | None:
    """The file that describes the model in a folder, :data:`OPEN_CLIP_CONFIG` or :data:`HUGGING_FACE_CONFIG`;
    :data:`DENSE_LAYOUT` for the files of a model of :mod:`clearclip.dense_models`; None for all others.
    """
    # First of all: Talk2DINO's folder may have a CLIP in OpenCLIP's layout beside its own files.
    if folder_family(folder) is not None:
        return DENSE_LAYOUT
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return OPEN_CLIP_CONFIG
    path = folder / HUGGING_FACE_CONFIG
    if path.is_file() and read_json(path).get("model_type") in HUGGING_FACE_TYPES:
        return HUGGING_FACE_CONFIG
    return None


def model_folder(name: str) -> Path | None:
    """Where a ``local-dir:`` or ``hf-hub:`` model has its configuration, fetched if need be; None for other names.

    Raises:
        UserError: it cannot be fetched, or is none that is known here.
    """
    # The spelling that OpenCLIP has for them.
    schema, _, repository = name.partition(":")
    if schema not in ("local-dir", "hf-hub"):
        return None
    if schema == "local-dir":
        folder = Path(repository)
    else:
        folder = fetch(repository, OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG, remedy=folder_remedy(name)).parent
    if layout(folder) is None:
        raise UserError(
            f"{repository} has neither {OPEN_CLIP_CONFIG} (OpenCLIP's layout) nor the {HUGGING_FACE_CONFIG} of a "
            "CLIPModel or SiglipModel (Hugging Face's); name an OpenCLIP model, and a file in it as pretrained"
        )
    return folder


def folder_remedy(name: str) -> str:
    """What to do where a repository cannot be fetched."""
    return f"download the repository elsewhere and name its folder: local-dir:{name.rpartition('/')[2]}"

"""Which weights a row of the table uses, and how weights are loaded: safely, with the right activation.

The activation is the trap: OpenAI's and MetaCLIP's weights were trained with QuickGELU, OpenCLIP only warns of a
mismatch and goes on with plain GELU. Here the activation follows the pretrained tag, also for a file.
"""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.factory import parse_model_name
from torch import nn

from clearclip.miniature import DIRECTORY as MINIATURE
from clearclip.utils.errors import UserError
from clearclip.utils.hub import fetch

#: (clip_type, vit_type) → the model's name in OpenCLIP (or here) and the tag of its published weights.
CHECKPOINTS = {
    ("CLIP", "ViT-B/16"): ("ViT-B-16", "openai"),
    ("CLIP", "ViT-L/14"): ("ViT-L-14", "openai"),
    ("OpenCLIP", "ViT-B/16"): ("ViT-B-16", "laion2b_s34b_b88k"),
    ("OpenCLIP", "ViT-L/14"): ("ViT-L-14", "laion2b_s32b_b82k"),
    ("MetaCLIP", "ViT-B/16"): ("ViT-B-16", "metaclip_fullcc"),
    ("MetaCLIP", "ViT-L/14"): ("ViT-L-14", "metaclip_fullcc"),
    # The tables call BLIP's ViT-L/16 ViT-L/14.
    ("BLIP", "ViT-B/16"): ("BLIP ViT-B/16", "model_base_14M"),
    ("BLIP", "ViT-L/14"): ("BLIP ViT-L/16", "model_large"),
    ("BLIP", "ViT-L/16"): ("BLIP ViT-L/16", "model_large"),
    ("DINO", "ViT-B/16"): ("DINO ViT-B/16", "vit_base_patch16_224.dino"),
    ("Miniature", "ViT-Ti/8"): (f"local-dir:{MINIATURE}", None),
}
CLIP_TYPES = ("CLIP", "OpenCLIP", "MetaCLIP", "BLIP", "DINO", "Miniature")
VIT_TYPES = ("ViT-B/16", "ViT-L/14", "ViT-L/16", "ViT-Ti/8")

#: The value of ``pretrained`` for random weights.
RANDOM = "random"

#: The names of an OpenCLIP model's weights on the hub.
WEIGHTS_FILES = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)

# OpenAI's mean and std of 0..255 RGB, used for every model of the published tables.
OPENAI_MEAN = (122.771, 116.746, 104.094)
OPENAI_STD = (68.501, 66.632, 70.323)


@dataclass(frozen=True)
class Weights:
    """What to load.

    Attributes:
        model_name: a name that ``open_clip.create_model`` takes, ``hf-hub:`` and ``local-dir:`` included.
        pretrained: a tag, a checkpoint file, :data:`RANDOM`, or None: the weights that a ``hf-hub:`` or ``local-dir:``
            model has with it.
        quick_gelu: the activation, or None to let the model's own configuration decide.
        tag: the tag that these weights are said to belong to, where known.
    """

    model_name: str
    pretrained: str | None
    quick_gelu: bool | None = None
    tag: str | None = None

    @property
    def is_miniature(self) -> bool:
        """Whether these are the bundled model's."""
        return self.model_name == f"local-dir:{MINIATURE}" and self.pretrained is None

    @property
    def label(self) -> str:
        """In words: ``ViT-B-16 (openai)``."""
        if self.is_miniature:
            return "miniature"
        return f"{self.model_name} ({self.pretrained or 'own weights'})"


def choose_weights(
    clip_type: str | None = None,
    vit_type: str | None = None,
    model_name: str | None = None,
    pretrained: str | os.PathLike | None = None,
    quick_gelu: bool | None = None,
) -> Weights:
    """Resolve the options of the same names (:class:`clearclip.ModelSettings`) to weights and activation.

    Raises:
        UserError: an unknown model, or one without weights of its own, and none named.
    """
    pretrained = None if pretrained is None else os.fspath(pretrained)
    if model_name == "miniature":
        model_name, clip_type = None, "Miniature"
    if clip_type is None and model_name is None and pretrained is None:
        clip_type = "CLIP"
    vit_type = "ViT-Ti/8" if clip_type == "Miniature" else vit_type or "ViT-B/16"
    known_name, known_tag = CHECKPOINTS.get((clip_type or "CLIP", vit_type), (None, None))
    model_name = model_name.replace("/", "-") if model_name and ":" not in model_name else model_name or known_name
    if ":" in model_name:
        return Weights(model_name, pretrained, quick_gelu)
    if model_name != known_name and open_clip.get_model_config(model_name) is None:
        raise UserError(
            f"unknown model {model_name!r}; open_clip.list_models() has the names, and open_clip.add_model_config adds "
            "yours"
        )
    # A file may be anyone's if only its place is given.
    tag = known_tag if clip_type is not None and model_name == known_name else None
    if pretrained not in (None, RANDOM):
        tag = known_tag_of(model_name, pretrained) or tag
    elif pretrained is None and tag is None:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model_name)) or "none"
        raise UserError(
            f"{model_name} has no weights of its own; name them as pretrained: a tag ({tags}), a file, or random"
        )
    pretrained = pretrained or tag
    if quick_gelu is None and tag is not None:
        quick_gelu = bool(open_clip.get_pretrained_cfg(model_name, tag).get("quick_gelu", False))
    elif quick_gelu is None and pretrained != RANDOM:
        _warn_if_activation_is_open(model_name, pretrained)
    return Weights(model_name, pretrained, quick_gelu, tag)


def known_tag_of(model_name: str, pretrained: str | None) -> str | None:
    """The tag that ``pretrained`` is, or whose published file has the same name as the file ``pretrained``."""
    if pretrained is None:
        return None
    if open_clip.get_pretrained_cfg(model_name, pretrained):
        return pretrained.lower().replace("-", "_")
    for tag in open_clip.list_pretrained_tags_by_model(model_name):
        published = open_clip.get_pretrained_cfg(model_name, tag).get("url")
        if published and published.rpartition("/")[2] == Path(pretrained).name:
            return tag
    return None


def _warn_if_activation_is_open(model_name: str, pretrained: str) -> None:
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    quick = {bool(open_clip.get_pretrained_cfg(model_name, tag).get("quick_gelu")) for tag in tags}
    if len(quick) == 2 and not (open_clip.get_model_config(model_name) or {}).get("quick_gelu"):
        warnings.warn(
            f"weights of {model_name} exist with QuickGELU (OpenAI, MetaCLIP, DFN) and with GELU (LAION); {pretrained} "
            "does not say which, so GELU is taken: set quick_gelu (--quick-gelu, --no-quick-gelu)",
            stacklevel=3,
        )


@dataclass
class LoadedCLIP:
    """A CLIP model, ready to run.

    Attributes:
        model: open_clip's module, in evaluation mode, without gradients.
        tokenizer: prompts to tokens.
        weights: what was asked for.
        mean, std: the checkpoint's own normalisation, of 0..255 RGB.
    """

    model: nn.Module
    tokenizer: Any
    weights: Weights
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_clip(weights: Weights, device: torch.device, precision: str) -> LoadedCLIP:
    """Build the model and load its weights (``weights_only``, or safetensors: data, never code).

    Raises:
        UserError: unknown model or tag, weights that cannot be fetched (says which file to get), a damaged or
            foreign checkpoint, weights that are not finite.
    """
    model = _build(weights, precision)
    check_finite(model, weights)
    model.eval().requires_grad_(False).to(device)
    # A file or random weights are normalised as the tag they belong to says, if any; else as the model's own config.
    cfg = dict(open_clip.get_model_preprocess_cfg(model))
    if weights.tag is not None:
        cfg.update(open_clip.get_pretrained_cfg(weights.model_name, weights.tag))
    mean = cfg.get("mean") or open_clip.OPENAI_DATASET_MEAN
    std = cfg.get("std") or open_clip.OPENAI_DATASET_STD
    return LoadedCLIP(
        model=model,
        tokenizer=open_clip.get_tokenizer(weights.model_name),
        weights=weights,
        mean=tuple(255 * value for value in mean),
        std=tuple(255 * value for value in std),
    )


def check_finite(tower: nn.Module, weights: Weights) -> None:
    """Raise a UserError where a tower with these weights has values that are not finite."""
    for name, tensor in tower.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f"the weights of {weights.label} have NaN or infinite values in {name}; download them again"
            )


def _build(weights: Weights, precision: str) -> nn.Module:
    name, pretrained = weights.model_name, weights.pretrained
    schema, identifier = parse_model_name(name)
    if schema == "hf-hub":
        remedy = f"download the repository elsewhere and name its folder: local-dir:{Path(identifier).name}"
        folder = fetch(identifier, "open_clip_config.json", remedy=remedy).parent
        if pretrained is None:
            fetch(identifier, *WEIGHTS_FILES, remedy=remedy)
        schema, identifier, name = "local-dir", str(folder), f"local-dir:{folder}"
    if schema == "local-dir" and not (Path(identifier) / "open_clip_config.json").is_file():
        raise UserError(f"{identifier} has no open_clip_config.json, which a local-dir: model needs")
    path = None if pretrained in (None, RANDOM) else find_checkpoint(weights)
    options = {} if weights.quick_gelu is None else {"quick_gelu": weights.quick_gelu}
    own = pretrained is None
    try:
        with _without_remark() if path is not None else nullcontext():
            model = open_clip.create_model(
                name, precision=precision, load_weights=own, require_pretrained=own, **options
            )
        if path is not None:
            _load_file(model, path)
    except UserError:
        raise
    except Exception as error:  # damaged files make loaders raise all sorts of errors
        raise UserError(
            f"{weights.label} cannot be loaded ({_brief(error)}); check that its files are whole and belong together"
        ) from error
    return model


@contextmanager
def _without_remark() -> Iterator[None]:
    """Without OpenCLIP's remark that a model is random, for one that gets its weights from a file afterwards."""

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No pretrained weights loaded")

    logging.getLogger().addFilter(keep)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(keep)


def find_checkpoint(weights: Weights) -> str:
    """The file of a tag (fetched if need be) or the file given.

    Raises:
        UserError: it is neither, or cannot be fetched.
    """
    name, pretrained = weights.model_name, weights.pretrained
    if os.path.isfile(pretrained):
        return pretrained
    cfg = {} if ":" in name else open_clip.get_pretrained_cfg(name, pretrained)
    if not cfg:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise UserError(f"pretrained={pretrained!r} is neither a file nor a tag of {name} (tags: {tags})")
    repository, _, file = cfg["hf_hub"].rpartition("/")
    remedy = f"download {name}'s {pretrained} elsewhere and give the file as pretrained"
    return str(fetch(repository, *([file] if file else WEIGHTS_FILES), remedy=remedy))


def _load_file(model: nn.Module, path: str) -> None:
    try:
        open_clip.load_checkpoint(model, path)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than weights (or is damaged) and was not run; use safetensors") from error
    except RuntimeError as error:
        if "TorchScript" not in str(error):
            raise
        # OpenAI's own files are TorchScript archives, whose loader runs no Python.
        archive = torch.jit.load(path, map_location="cpu").state_dict()
        for extra in ("input_resolution", "context_length", "vocab_size"):
            archive.pop(extra, None)
        model.load_state_dict({name: value.float() for name, value in archive.items()})


def _brief(error: Exception) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= 400 else text[:397] + "..."

"""Which weights a row of the table uses, and how weights are loaded: safely, with the right activation.

The activation is the trap: OpenAI's and MetaCLIP's weights were trained with QuickGELU, OpenCLIP only warns of a
mismatch and goes on with plain GELU. Here the activation follows the pretrained tag, also for a file.
"""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import parse_model_name
from open_clip.pretrained import download_pretrained
from torch import nn

from clearclip.errors import UserError
from clearclip.miniature import DIRECTORY as MINIATURE

#: (clip_type, vit_type) → OpenCLIP's model name and pretrained tag. BLIP's and DINO's lie in blip/ and dino.py.
CHECKPOINTS = {
    ("CLIP", "ViT-B/16"): ("ViT-B-16", "openai"),
    ("CLIP", "ViT-L/14"): ("ViT-L-14", "openai"),
    ("OpenCLIP", "ViT-B/16"): ("ViT-B-16", "laion2b_s34b_b88k"),
    ("OpenCLIP", "ViT-L/14"): ("ViT-L-14", "laion2b_s32b_b82k"),
    ("MetaCLIP", "ViT-B/16"): ("ViT-B-16", "metaclip_fullcc"),
    ("MetaCLIP", "ViT-L/14"): ("ViT-L-14", "metaclip_fullcc"),
    ("Miniature", "ViT-Ti/8"): (f"local-dir:{MINIATURE}", None),
}
CLIP_TYPES = ("CLIP", "OpenCLIP", "MetaCLIP", "BLIP", "DINO", "Miniature")
VIT_TYPES = ("ViT-B/16", "ViT-L/14", "ViT-L/16", "ViT-Ti/8")

#: Stands for "the weights that belong to the model"; None means random weights.
DEFAULT = "default"

# OpenAI's mean and std of 0..255 RGB, used for every model of the published tables.
OPENAI_MEAN = (122.771, 116.746, 104.094)
OPENAI_STD = (68.501, 66.632, 70.323)


@dataclass(frozen=True)
class Weights:
    """What to load.

    Attributes:
        model_name: a name that ``open_clip.create_model`` takes, ``hf-hub:`` and ``local-dir:`` included.
        pretrained: a tag, a checkpoint file, or None: the weights that lie with a ``hf-hub:`` or ``local-dir:``
            model, random ones for any other.
        quick_gelu: the activation, or None to let the model's own configuration decide.
        tag: the tag that these weights belong to, where known.
    """

    model_name: str
    pretrained: str | None
    quick_gelu: bool | None = None
    tag: str | None = None

    @property
    def label(self) -> str:
        """For people: ``ViT-B-16 (openai)``."""
        if is_miniature(self.model_name):
            return "miniature"
        return f"{self.model_name} ({self.pretrained or ('own weights' if ':' in self.model_name else 'random')})"


def is_miniature(model_name: str) -> bool:
    """Whether a model name means the bundled miniature."""
    return model_name == f"local-dir:{MINIATURE}"


def choose_weights(
    clip_type: str | None = None,
    vit_type: str | None = None,
    model_name: str | None = None,
    pretrained: str | None = DEFAULT,
    quick_gelu: bool | None = None,
) -> Weights:
    """Resolve a row's names, or a model's own name, to weights and activation.

    Args:
        clip_type: one of :data:`CLIP_TYPES` (default "CLIP").
        vit_type: one of :data:`VIT_TYPES` (default "ViT-B/16").
        model_name: overrides both; "miniature" is the bundled one.
        pretrained: a tag or a file; :data:`DEFAULT` takes what belongs to the model; None means random weights.
        quick_gelu: force the activation.

    Raises:
        UserError: unknown names; lists the valid ones.
    """
    if isinstance(pretrained, os.PathLike):
        pretrained = os.fspath(pretrained)
    for name, value in (("model_name", model_name), ("pretrained", pretrained)):
        if value is not None and not isinstance(value, str):
            raise UserError(f"{name} must be a string, not {value!r}; open_clip.list_pretrained() has names and tags")
    if clip_type is not None and clip_type not in CLIP_TYPES:
        raise UserError(f"unknown clip_type {clip_type!r}; choose from {', '.join(CLIP_TYPES)}")
    known_name, known_tag = None, None
    if clip_type == "Miniature" or (model_name is None and vit_type == "ViT-Ti/8"):
        clip_type, vit_type = "Miniature", "ViT-Ti/8"
    elif vit_type is not None and vit_type not in VIT_TYPES:
        raise UserError(f"unknown vit_type {vit_type!r}; choose from {', '.join(VIT_TYPES)}")
    if clip_type is not None or model_name is None:
        known_name, known_tag = CHECKPOINTS[clip_type or "CLIP", vit_type or "ViT-B/16"]
    if model_name in (None, known_name):
        model_name, tag = known_name, known_tag
        pretrained = tag if pretrained == DEFAULT else pretrained
    elif model_name == "miniature":
        model_name, _ = CHECKPOINTS["Miniature", "ViT-Ti/8"]
        tag, pretrained = None, None if pretrained == DEFAULT else pretrained
    else:
        tag, pretrained = None, None if pretrained == DEFAULT else pretrained
    if parse_model_name(model_name)[0] is None:
        model_name = model_name.replace("/", "-")
        tag = _tag_of(model_name, pretrained) or tag
        if quick_gelu is None and tag is not None:
            quick_gelu = bool(open_clip.get_pretrained_cfg(model_name, tag).get("quick_gelu", False))
        elif quick_gelu is None and pretrained is not None:
            _warn_if_activation_is_open(model_name, pretrained)
    return Weights(model_name, pretrained, quick_gelu, tag)


def _tag_of(model_name: str, pretrained: str | None) -> str | None:
    """The tag that ``pretrained`` is, or whose published file has the same name as the file ``pretrained``."""
    if pretrained is None:
        return None
    if open_clip.get_pretrained_cfg(model_name, pretrained):
        return pretrained.lower().replace("-", "_")
    for tag in open_clip.list_pretrained_tags_by_model(model_name):
        cfg = open_clip.get_pretrained_cfg(model_name, tag)
        published = Path(cfg.get("url") or cfg.get("hf_hub") or "").name
        if published and published == Path(pretrained).name and not published.startswith("open_clip"):
            return tag
    return None


def _warn_if_activation_is_open(model_name: str, pretrained: str) -> None:
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    quick = {bool(open_clip.get_pretrained_cfg(model_name, tag).get("quick_gelu")) for tag in tags}
    if len(quick) == 2 and not (open_clip.get_model_config(model_name) or {}).get("quick_gelu"):
        warnings.warn(
            f"weights of {model_name} exist with QuickGELU (OpenAI, MetaCLIP, DFN) and with GELU (LAION); {pretrained} "
            "does not say which, so GELU is taken: set quick_gelu=True, or clip_type='CLIP', if it needs QuickGELU",
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
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"the weights of {weights.label} have NaN or infinite values in {name}; get them anew")
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


def _build(weights: Weights, precision: str) -> nn.Module:
    schema, identifier = parse_model_name(weights.model_name)
    if schema is None and open_clip.get_model_config(weights.model_name) is None:
        raise UserError(
            f"unknown model {weights.model_name!r}; open_clip.list_models() has the names, and "
            "open_clip.add_model_config adds yours"
        )
    if schema == "local-dir" and not (Path(identifier) / "open_clip_config.json").is_file():
        raise UserError(f"{identifier} has no open_clip_config.json, which a local-dir: model needs")
    path = None if weights.pretrained is None else find_checkpoint(weights)
    own_weights = schema is not None and path is None
    options = {} if weights.quick_gelu is None else {"quick_gelu": weights.quick_gelu}
    try:
        with warnings.catch_warnings():
            # The activation is set above; OpenCLIP cannot know.
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")
            model = open_clip.create_model(
                weights.model_name,
                precision=precision,
                load_weights=own_weights,
                require_pretrained=own_weights,
                **options,
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


def find_checkpoint(weights: Weights) -> str:
    """The file of a tag (fetched if need be) or the file given.

    Raises:
        UserError: it is neither, or cannot be fetched.
    """
    name, pretrained = weights.model_name, weights.pretrained
    cfg = open_clip.get_pretrained_cfg(name, pretrained) if parse_model_name(name)[0] is None else None
    if not cfg:
        if os.path.isfile(pretrained):
            return pretrained
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise UserError(f"pretrained={pretrained!r} is neither a file nor a tag of {name} (tags: {tags})")
    # Its retries would fill the screen; what is left of them is told below.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.ERROR)
    try:
        return download_pretrained(cfg)
    except Exception as error:  # whatever the network or the hub client raises
        repository, _, file = (cfg.get("hf_hub") or "").rpartition("/")
        source = cfg.get("url")
        if repository:
            source = f"{file or 'open_clip_model.safetensors'} of {repository} on the Hugging Face hub"
        raise UserError(
            f"the weights {name} ({pretrained}) cannot be fetched from here ({type(error).__name__}); download them "
            f"elsewhere ({source}) and give the file as pretrained, or put it into the hub's cache"
        ) from error


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

"""From settings to the two towers of a model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.model import CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clearclip.backbones.casting import cast, prepare
from clearclip.backbones.checkpoints import check_finite, load_weights, read_checkpoint
from clearclip.backbones.dense_encoder import SUPPORTED, TOWERS, DenseEncoder, check_tokens
from clearclip.backbones.tokenizers import load_tokenizer, text_model_folder
from clearclip.dense_models import DINO_TXT, RADIO, TALK2DINO, TIPS, Family, dense_files, find_family
from clearclip.miniature import METHOD_OPTIONS
from clearclip.model_settings import ModelSettings
from clearclip.text import TextEncoder, read_templates
from clearclip.text.encoder import mean_direction
from clearclip.utils.errors import UserError
from clearclip.utils.precisions import precision_of_weights
from clearclip.weights import (
    HUGGING_FACE_CONFIG,
    OPEN_CLIP_CONFIG,
    OPENAI_MEAN,
    OPENAI_STD,
    RANDOM,
    Weights,
    find_checkpoint,
    layout,
    model_folder,
    read_json,
    said_by_tags,
)


class Towers(NamedTuple):
    """Both towers, ready to run; ``mean`` and ``std`` of 0..255 RGB. ``text`` is None for a tower without words."""

    image: DenseEncoder
    text: TextEncoder | None
    weights: Weights
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_towers(settings: ModelSettings, device: torch.device, precision: str) -> Towers:
    """Load both towers.

    Args:
        settings: which weights, and how images are normalised.
        device, precision: where and in what to compute ("fp32", "fp16", "bf16" or "mixed").

    Raises:
        UserError: weights that do not exist, fit or load.
    """
    towers = _load_towers(settings, device, precision_of_weights(precision))
    if precision == "mixed":
        towers.image.compute_mixed()
    return towers


def _load_towers(settings: ModelSettings, device: torch.device, precision: str) -> Towers:
    own = settings.clip_type in ("BLIP", "DINO")
    if own and settings.model_name is not None:
        raise UserError(f"clip_type={settings.clip_type!r} takes no model_name; name a file or folder as pretrained")
    weights = settings.chosen_weights
    if settings.clip_type == "DINO":
        from clearclip.backbones.dino_tower import load_dino

        # The published tables have no row of DINO's, whose statistics want its own normalisation.
        encoder, mean, std = load_dino(weights, device, precision)
        return Towers(encoder, None, weights, mean, std)
    family = find_family(weights.model_name)
    if family is not None:
        return _load_dense_towers(family, weights, settings, device, precision)
    if settings.clip_type == "BLIP":
        from clearclip.backbones.blip import load_blip

        image, text = load_blip(weights, device, precision, settings.slide_crop or None, settings.cached)
        text.templates = read_templates(settings.templates)
        # BLIP was trained with OpenAI's mean and std.
        return Towers(image, text, weights, OPENAI_MEAN, OPENAI_STD)
    clip = load_clip(weights, device, precision)
    image = TOWERS.build(clip.model.visual)
    # CLIP's own tokenizer pads with 0; what others pad with is not known.
    padding = 0 if isinstance(clip.tokenizer, SimpleTokenizer) else None
    text = TextEncoder(
        clip.model,
        clip.tokenizer,
        dim=image.dim,
        padding=padding,
        precision=precision,
        cached=settings.cached,
        templates=read_templates(settings.templates),
    )
    if weights.is_miniature:
        image.method_options = METHOD_OPTIONS
    if settings.chosen_normalization == "openai":
        return Towers(image, text, weights, OPENAI_MEAN, OPENAI_STD)
    return Towers(image, text, weights, clip.mean, clip.std)


def _load_dense_towers(
    family: Family, weights: Weights, settings: ModelSettings, device: torch.device, precision: str
) -> Towers:
    """The towers of a model of :mod:`clearclip.dense_models`. What is not defined for it is refused before a download.

    Raises:
        UserError: as for :func:`load_towers`.
    """
    check_tokens(settings.chosen_method, family.has_class_token, family.same_tokens)
    templates = read_templates(settings.templates)
    files, label = dense_files(weights.model_name, weights.pretrained), weights.label
    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    combine, padding = mean_direction, 0
    image: DenseEncoder
    tokenizer: Callable[[list[str]], Any]
    if family is TIPS:
        from clearclip.backbones.tips import SentencePieceTokenizer, load_tips

        tokenizer = SentencePieceTokenizer(files["tokenizer"])
        image, text = load_tips(files, label)
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif family is DINO_TXT:
        from clearclip.backbones.dinotxt import load_dinotxt

        image, text = load_dinotxt(files, label, at_backbone=weights.model_name.endswith("-backbone"))
        tokenizer = SimpleTokenizer(context_length=text.text.context_length)
    elif family is RADIO:
        from clearclip.backbones.radio import load_radio

        kind = {"hf_tokenizer_name": "SigLIP 2", "context_length": 64, "tokenizer_kwargs": {"clean": "canonicalize"}}
        tokenizer, padding = load_tokenizer(kind, files["tokenizer"].parent), None
        image, text = load_radio(files, label)
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    else:
        from clearclip.backbones.talk2dino import load_talk2dino

        image, projection = load_talk2dino(files, label)
        combine = prepare(projection, device, "fp32", weights).combine
        own_folder = files["text"].name == OPEN_CLIP_CONFIG
        clip_name = f"local-dir:{files['text'].parent}" if own_folder else "ViT-B-16"
        clip_weights = Weights(clip_name, str(files["text weights"]), quick_gelu=None if own_folder else True)
        clip = load_clip(clip_weights, device, precision)
        text, tokenizer = clip.model, clip.tokenizer
    if family is not TALK2DINO:
        prepare(text, device, precision, weights)
    options = dict(dim=image.dim, padding=padding, precision=precision, cached=settings.cached, templates=templates)
    encoder = TextEncoder(text, tokenizer, combine=combine, **options)
    if settings.chosen_normalization == "openai":
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    mean, std = (tuple(255 * value for value in values) for values in (mean, std))
    return Towers(prepare(image, device, precision, weights), encoder, weights, mean, std)


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
    tokenizer: Callable[[list[str]], Any]
    weights: Weights
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_clip(weights: Weights, device: torch.device, precision: str) -> LoadedCLIP:
    """Build the model and load its weights, which are data and never code.

    Whether the image tower is one that is known is decided by the configuration, before weights are fetched.

    Raises:
        UserError: unknown model or tag, an image tower that does not fit, weights or tokenizer that cannot be fetched
            (says which file to get), a damaged or foreign checkpoint, weights that are not finite.
    """
    folder = model_folder(weights.model_name)
    if folder is not None and layout(folder) == HUGGING_FACE_CONFIG:
        from clearclip.backbones.hugging_face import load_hugging_face

        model, tokenizer, mean, std = load_hugging_face(folder, find_checkpoint(weights), weights)
        cast(model, precision)
    else:
        if folder is None:
            described = {"model_cfg": open_clip.get_model_config(weights.model_name)}
        else:
            described = read_json(folder / OPEN_CLIP_CONFIG)
        model, tokenizer = _load_open_clip(weights, described.get("model_cfg"), folder, precision)
        mean, std = _normalization(weights, described.get("preprocess_cfg") or {})
    check_finite(model, weights.label)
    model.eval().requires_grad_(False).to(device)
    try:
        mean, std = ([255 * float(value) for value in values] for values in (mean, std))
        fits = len(mean) == len(std) == 3 and min(std) > 0 and all(map(math.isfinite, (*mean, *std)))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(f"the mean and std of {weights.model_name} are no three numbers each; check its configuration")
    mean, std = tuple(mean), tuple(std)
    return LoadedCLIP(model=model, tokenizer=tokenizer, weights=weights, mean=mean, std=std)


def _load_open_clip(
    weights: Weights, config: dict[str, Any], folder: Path | None, precision: str
) -> tuple[nn.Module, Callable[[list[str]], Any]]:
    """A model of OpenCLIP's in ``precision``, and its tokenizer."""
    try:
        vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
        tower = outline(config)
    except UserError as error:
        raise UserError(f"{weights.model_name}: {error}") from error
    except Exception as error:
        raise _no_model(weights, error) from error
    tokenizer = load_tokenizer(text, folder)
    options: dict[str, Any] = {} if weights.quick_gelu is None else {"quick_gelu": weights.quick_gelu}
    if text.get("hf_model_name"):
        # Neither fetches its own weights, which the checkpoint has, nor asks the hub again.
        options["text_cfg"] = {**text, "hf_model_name": str(text_model_folder(str(text["hf_model_name"]), folder))}
        options["text_cfg"]["hf_model_pretrained"] = False
    names = [f"visual.{name}" for name in tower.visual.state_dict()]
    state = read_checkpoint(find_checkpoint(weights), names)
    # OpenCLIP leaves some parts in fp32.
    parts = ("timm_model_name", "hf_model_name", "ls_init_value", "embed_cls")
    converted = not any(vision.get(part) or text.get(part) for part in parts)
    options["force_image_size"] = _image_size(tower, state)
    name = weights.model_name if folder is None else f"local-dir:{folder}"
    try:
        with _without_remarks(weights.pretrained != RANDOM):
            model = open_clip.create_model(
                name, precision=precision if converted else "fp32", load_weights=False, pretrained_text=False, **options
            )
    except Exception as error:
        raise _no_model(weights, error) from error
    if weights.pretrained != RANDOM:
        load_weights(model, state, weights.label)
    return (model if converted else cast(model, precision)), tokenizer


def _no_model(weights: Weights, error: Exception) -> UserError:
    """For whatever a configuration of anyone's raises."""
    reason = f"{type(error).__name__}: {error}"
    return UserError(f"the configuration of {weights.model_name} makes no model ({reason}); check it, or get it again")


class _UninitialisedWeights(TorchFunctionMode):
    """Modules are made without drawing their weights, which keep what their memory holds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func in (torch.randn, torch.rand):
            func = torch.empty
        return func(*args, **kwargs)


def outline(config: dict[str, Any]) -> DenseEncoder:
    """The image tower of one of OpenCLIP's configurations, without weights.

    Raises:
        UserError: it is none that is known here; names what does not fit.
    """
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    if ":" in (vision.get("timm_model_name") or ""):
        raise UserError(f"the image tower is {vision['timm_model_name']!r}, a model of somebody's; {SUPPORTED}")
    # The device "meta" takes no memory, but loads PyTorch's compiler, which is a third of the time to the first result.
    # OpenCLIP's own towers draw weights in a few ways only, and memory that nobody writes to is never taken.
    with torch.device("meta") if vision.get("timm_model_name") else _UninitialisedWeights():
        text = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}
        quick_gelu = config.get("quick_gelu", False)
        return TOWERS.build(CustomTextCLIP(config["embed_dim"], vision, text, quick_gelu=quick_gelu).visual)


def _image_size(tower: DenseEncoder, state: dict[str, Tensor]) -> int | None:
    """Side in pixels of the images that a checkpoint's positions were trained for, if it is not the model's."""
    own = {f"visual.{name}": value for name, value in tower.visual.state_dict().items()}
    for name in ("visual.positional_embedding", "visual.trunk.pos_embed"):
        if name in own and name in state and state[name].shape != own[name].shape:
            before = own[name].shape[-2] - math.prod(tower.grid_size)
            side = math.isqrt(max(0, state[name].shape[-2] - before))
            if side and side**2 + before == state[name].shape[-2]:
                return side * tower.patch_size[0]
    return None


@contextmanager
def _without_remarks(wanted: bool) -> Iterator[None]:
    """Without OpenCLIP's remarks that a model is random, for one that gets its weights afterwards."""

    def keep(record: logging.LogRecord) -> bool:
        return not ((wanted and "weights" in record.getMessage()) or "checkpoints" in record.getMessage())

    logging.getLogger().addFilter(keep)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(keep)


def _normalization(weights: Weights, preprocess: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of 0..1 RGB: the model's own configuration says them, the tag, or all tags of the model alike."""
    found = []
    for name, usual in (("mean", open_clip.OPENAI_DATASET_MEAN), ("std", open_clip.OPENAI_DATASET_STD)):
        said = (
            {tuple(preprocess[name])} if preprocess.get(name) else said_by_tags(weights.model_name, weights.tag, name)
        )
        found.append(said.pop() if len(said) == 1 else usual)
    return found[0], found[1]

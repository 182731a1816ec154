"""Models of OpenCLIP, and CLIP models in Hugging Face's layout: from a configuration, with weights that are data."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CustomTextCLIP
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clearclip.backbones.casting import cast
from clearclip.backbones.checkpoints import check_finite, load_weights, read_checkpoint
from clearclip.backbones.dense_encoder import SUPPORTED, TOWERS, DenseEncoder
from clearclip.backbones.tokenizers import load_tokenizer, text_model_folder
from clearclip.utils.errors import UserError
from clearclip.weights import (
    HUGGING_FACE_CONFIG,
    OPEN_CLIP_CONFIG,
    RANDOM,
    Weights,
    find_checkpoint,
    layout,
    model_folder,
    read_json,
    values_of_tags,
)

#: Parts of a configuration that OpenCLIP leaves in fp32 when it converts a model to half precision.
_NOT_CONVERTED = ("timm_model_name", "hf_model_name", "ls_init_value", "embed_cls")


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
            config = {"model_cfg": open_clip.get_model_config(weights.model_name)}
        else:
            config = read_json(folder / OPEN_CLIP_CONFIG)
        model, tokenizer = _load_open_clip(weights, config.get("model_cfg"), folder, precision)
        mean, std = _normalization(weights, config.get("preprocess_cfg") or {})
    check_finite(model, weights.label)
    model.eval().requires_grad_(False).to(device)
    mean, std = _as_pixel_values(mean, std, weights.model_name)
    return LoadedCLIP(model=model, tokenizer=tokenizer, weights=weights, mean=mean, std=std)


def _as_pixel_values(mean: Any, std: Any, model_name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of 0..1 RGB, as a configuration of anyone's has them, as those of 0..255 RGB."""
    try:
        mean = tuple(255 * float(value) for value in mean)
        std = tuple(255 * float(value) for value in std)
        fits = len(mean) == len(std) == 3 and min(std) > 0 and all(map(math.isfinite, (*mean, *std)))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(f"the mean and std of {model_name} are no three numbers each; check its configuration")
    return mean, std


def _load_open_clip(
    weights: Weights, config: Any, folder: Path | None, precision: str
) -> tuple[nn.Module, Callable[[list[str]], Any]]:
    """A model of OpenCLIP's in ``precision``, and its tokenizer."""
    try:
        vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
        tower = outline(config)
    except UserError as error:
        raise UserError(f"{weights.model_name}: {error}") from error
    except Exception as error:
        raise _no_model(weights, error) from error
    # Before the weights, which take longer to fetch: what is missing is said soon.
    tokenizer = load_tokenizer(text, folder)
    options: dict[str, Any] = {}
    if weights.quick_gelu is not None:
        options["quick_gelu"] = weights.quick_gelu
    if text.get("hf_model_name"):
        # Neither fetches its own weights, which the checkpoint has, nor asks the hub again.
        text_folder = text_model_folder(str(text["hf_model_name"]), folder)
        options["text_cfg"] = {**text, "hf_model_name": str(text_folder), "hf_model_pretrained": False}
    names = [f"visual.{name}" for name in tower.visual.state_dict()]
    state = read_checkpoint(find_checkpoint(weights), names)
    options["force_image_size"] = _image_size(tower, state)
    is_converted = not any(vision.get(option) or text.get(option) for option in _NOT_CONVERTED)
    model_precision = "fp32"
    if is_converted:
        model_precision = precision
    name = weights.model_name
    if folder is not None:  # also for hf-hub:, which OpenCLIP would ask again
        name = f"local-dir:{folder}"
    # The weights are loaded afterwards, by this package: OpenCLIP would unpickle some files.
    try:
        with _without_remarks(weights.pretrained != RANDOM):
            model = open_clip.create_model(
                name,
                precision=model_precision,
                load_weights=False,
                pretrained_text=False,
                **options,
            )
    except Exception as error:
        raise _no_model(weights, error) from error
    if weights.pretrained != RANDOM:
        load_weights(model, state, weights.label)
    if not is_converted:
        cast(model, precision)
    return model, tokenizer


def _no_model(weights: Weights, error: Exception) -> UserError:
    """For whatever a configuration of anyone's raises."""
    reason = f"{type(error).__name__}: {error}"
    return UserError(f"the configuration of {weights.model_name} makes no model ({reason}); check it, or get it again")


class _UninitialisedWeights(TorchFunctionMode):
    """Modules are made without drawing their weights, which keep what their memory holds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            # The tensor that the function would have filled, as it is.
            if args:
                return args[0]
            return kwargs["tensor"]
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
    without_weights: AbstractContextManager[Any] = _UninitialisedWeights()
    if vision.get("timm_model_name"):
        without_weights = torch.device("meta")
    # The smallest text tower that there is, which nobody looks at.
    text = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}
    quick_gelu = config.get("quick_gelu", False)
    with without_weights:
        model = CustomTextCLIP(config["embed_dim"], vision, text, quick_gelu=quick_gelu)
        return TOWERS.build(model.visual)


def _image_size(tower: DenseEncoder, state: dict[str, Tensor]) -> int | None:
    """Side in pixels of the images that a checkpoint's positions were trained for, if it is not the model's."""
    shapes = {f"visual.{name}": value.shape for name, value in tower.visual.state_dict().items()}
    for name in ("visual.positional_embedding", "visual.trunk.pos_embed"):
        if name not in shapes or name not in state or state[name].shape == shapes[name]:
            continue
        # The class token has a position in most towers, registers in some.
        prefix_count = shapes[name][-2] - math.prod(tower.grid_size)
        patch_count = state[name].shape[-2] - prefix_count
        side = math.isqrt(max(0, patch_count))
        if side and side**2 == patch_count:
            return side * tower.patch_size[0]
    return None


@contextmanager
def _without_remarks(gets_weights: bool) -> Iterator[None]:
    """Without OpenCLIP's remarks that a model is random, for one that gets its weights afterwards."""

    def is_of_use(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not ((gets_weights and "weights" in message) or "checkpoints" in message)

    logging.getLogger().addFilter(is_of_use)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(is_of_use)


def _normalization(weights: Weights, preprocess: dict[str, Any]) -> tuple[Any, Any]:
    """Mean and std of 0..1 RGB: the model's own configuration says them, the tag, or all tags of the model alike."""
    values = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    for name in values:
        if preprocess.get(name):
            values[name] = preprocess[name]
            continue
        # Where tags of a model differ and none is named, OpenAI's are as good a guess as any.
        tag_values = values_of_tags(weights.model_name, weights.tag, name)
        if len(tag_values) == 1:
            values[name] = tag_values.pop()
    return values["mean"], values["std"]

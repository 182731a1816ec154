"""From settings to the two towers of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from clearclip.backbones.casting import prepare
from clearclip.backbones.clip_loading import load_clip
from clearclip.backbones.dense_encoder import TOWERS, DenseEncoder, check_tokens
from clearclip.backbones.tokenizers import load_tokenizer
from clearclip.checkpoint_names import BUNDLED_METHOD_OPTIONS
from clearclip.dense_models import dense_files, find_family
from clearclip.model_settings import ModelSettings
from clearclip.text import TextEncoder, read_templates
from clearclip.text.encoder import mean_direction
from clearclip.utils.errors import UserError
from clearclip.utils.precisions import precision_of_weights
from clearclip.weights import OPEN_CLIP_CONFIG, OPENAI_MEAN, OPENAI_STD, Weights


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
    # The text tower stays in fp32: words are encoded once.
    if precision == "mixed":
        towers.image.compute_mixed()
    return towers


def _load_towers(settings: ModelSettings, device: torch.device, precision: str) -> Towers:
    if settings.clip_type in ("BLIP", "DINO") and settings.model_name is not None:
        raise UserError(f"clip_type={settings.clip_type!r} takes no model_name; name a file or folder as pretrained")
    weights = settings.chosen_weights
    if settings.clip_type == "DINO":
        from clearclip.backbones.dino_tower import load_dino

        # The published tables have no row of DINO's, whose statistics want its own normalisation.
        encoder, mean, std = load_dino(weights, device, precision)
        return Towers(encoder, None, weights, mean, std)
    if settings.clip_type == "BLIP":
        from clearclip.backbones.blip import load_blip

        image, text = load_blip(weights, device, precision, settings.slide_crop or None, settings.cached)
        text.templates = read_templates(settings.templates)
        # BLIP was trained with OpenAI's mean and std.
        return Towers(image, text, weights, OPENAI_MEAN, OPENAI_STD)
    if find_family(weights.model_name) is not None:
        towers = _load_dense_towers(weights, settings, device, precision)
    else:
        towers = _load_clip_towers(weights, settings, device, precision)
    if settings.chosen_normalization == "openai":
        towers = towers._replace(mean=OPENAI_MEAN, std=OPENAI_STD)
    return towers


def _load_clip_towers(weights: Weights, settings: ModelSettings, device: torch.device, precision: str) -> Towers:
    """The towers of an OpenCLIP model, or of one in Hugging Face's layout."""
    clip = load_clip(weights, device, precision)
    image = TOWERS.build(clip.model.visual)
    # The bundled model is shallower than the models for which methods' options were published.
    image.method_options = BUNDLED_METHOD_OPTIONS.get(weights.bundled_name, image.method_options)
    # CLIP's own tokenizer pads with 0; what others pad with is not known.
    padding = None
    if isinstance(clip.tokenizer, SimpleTokenizer):
        padding = 0
    text = TextEncoder(
        clip.model,
        clip.tokenizer,
        dim=image.dim,
        padding=padding,
        precision=precision,
        cached=settings.cached,
        templates=read_templates(settings.templates),
    )
    return Towers(image, text, weights, clip.mean, clip.std)


@dataclass
class LoadedDenseModel:
    """A model of :mod:`clearclip.dense_models` as its files describe it, in fp32.

    Attributes:
        image: the image tower.
        text: has ``encode_text``.
        tokenizer: prompts to tokens for it.
        mean, std: of 0..1 RGB.
        padding: the token that fills up short prompts, where it is known.
        combine: embeddings of prompts to features of words; see :class:`~clearclip.text.TextEncoder`.
    """

    image: DenseEncoder
    text: nn.Module
    tokenizer: Callable[[list[str]], Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int | None = 0
    combine: Callable[[Tensor], Tensor] = mean_direction


def _load_dense_towers(weights: Weights, settings: ModelSettings, device: torch.device, precision: str) -> Towers:
    """The towers of a model of :mod:`clearclip.dense_models`. What is not defined for it is refused before a download.

    Raises:
        UserError: as for :func:`load_towers`.
    """
    family = find_family(weights.model_name)
    check_tokens(settings.chosen_method, family.has_class_token, family.same_tokens)
    templates = read_templates(settings.templates)
    model = _DENSE_LOADERS[family.name](weights, device)
    text = TextEncoder(
        prepare(model.text, device, precision, weights),
        model.tokenizer,
        dim=model.image.dim,
        padding=model.padding,
        precision=precision,
        cached=settings.cached,
        templates=templates,
        combine=model.combine,
    )
    image = prepare(model.image, device, precision, weights)
    mean = tuple(255 * value for value in model.mean)
    std = tuple(255 * value for value in model.std)
    return Towers(image, text, weights, mean, std)


def _load_tips_model(weights: Weights, device: torch.device) -> LoadedDenseModel:
    from clearclip.backbones.tips import SentencePieceTokenizer, load_tips

    files = dense_files(weights.model_name, weights.pretrained)
    tokenizer = SentencePieceTokenizer(files["tokenizer"])
    image, text = load_tips(files, weights.label)
    return LoadedDenseModel(image, text, tokenizer, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def _load_dinotxt_model(weights: Weights, device: torch.device) -> LoadedDenseModel:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    from clearclip.backbones.dinotxt import load_dinotxt

    files = dense_files(weights.model_name, weights.pretrained)
    image, text = load_dinotxt(files, weights.label, at_backbone=weights.model_name.endswith("-backbone"))
    tokenizer = SimpleTokenizer(context_length=text.text.context_length)
    return LoadedDenseModel(image, text, tokenizer, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def _load_radio_model(weights: Weights, device: torch.device) -> LoadedDenseModel:
    from clearclip.backbones.radio import load_radio

    files = dense_files(weights.model_name, weights.pretrained)
    canonical = {"hf_tokenizer_name": "SigLIP 2", "context_length": 64, "tokenizer_kwargs": {"clean": "canonicalize"}}
    tokenizer = load_tokenizer(canonical, files["tokenizer"].parent)
    image, text = load_radio(files, weights.label)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return LoadedDenseModel(image, text, tokenizer, mean, std, padding=None)


def _load_talk2dino_model(weights: Weights, device: torch.device) -> LoadedDenseModel:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    from clearclip.backbones.talk2dino import load_talk2dino

    files = dense_files(weights.model_name, weights.pretrained)
    image, projection = load_talk2dino(files, weights.label)
    if files["text"].name == OPEN_CLIP_CONFIG:
        clip_weights = Weights(f"local-dir:{files['text'].parent}", str(files["text weights"]))
    else:
        clip_weights = Weights("ViT-B-16", str(files["text weights"]), quick_gelu=True)
    clip = load_clip(clip_weights, device, "fp32")
    # Words are few, so what is precise costs nothing here.
    combine = prepare(projection, device, "fp32", weights).combine
    return LoadedDenseModel(
        image, clip.model, clip.tokenizer, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, combine=combine
    )


#: The name of a family → what loads a model of it.
_DENSE_LOADERS = {
    "TIPSv2": _load_tips_model,
    "dino.txt": _load_dinotxt_model,
    "C-RADIO": _load_radio_model,
    "Talk2DINO": _load_talk2dino_model,
}

"""From settings to the two towers of a model."""

from __future__ import annotations

from typing import NamedTuple

import torch

from clearclip.backbones.base import TOWERS, DenseEncoder
from clearclip.miniature import METHOD_OPTIONS
from clearclip.settings import ModelSettings
from clearclip.text import TextEncoder
from clearclip.utils.errors import UserError
from clearclip.weights import OPENAI_MEAN, OPENAI_STD, Weights, choose_weights, load_clip


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
        device, precision: where and in what to compute ("fp32", "fp16" or "bf16").

    Raises:
        UserError: weights that do not exist, fit or load.
    """
    own = settings.clip_type in ("BLIP", "DINO")
    if own and settings.model_name is not None:
        raise UserError(f"clip_type={settings.clip_type!r} takes no model_name; name a file or folder as pretrained")
    names = ("clip_type", "vit_type", "model_name", "pretrained", "quick_gelu")
    weights = choose_weights(*(getattr(settings, name) for name in names))
    if settings.clip_type == "DINO":
        from clearclip.backbones.dino import load_dino

        # The published tables have no row of DINO's, whose statistics want its own normalisation.
        encoder, mean, std = load_dino(weights, device, precision)
        return Towers(encoder, None, weights, mean, std)
    if settings.clip_type == "BLIP":
        from clearclip.backbones.blip import load_blip

        image, text = load_blip(weights, device, precision, settings.slide_crop or None, settings.cached)
        # BLIP was trained with OpenAI's mean and std.
        towers = Towers(image, text, weights, OPENAI_MEAN, OPENAI_STD)
    else:
        clip = load_clip(weights, device, precision)
        image = TOWERS.build(clip.model.visual)
        text = TextEncoder(
            clip.model,
            clip.tokenizer,
            dim=image.dim,
            # CLIP's own tokenizer pads with 0; what others pad with is not known.
            padding=0 if isinstance(getattr(clip.tokenizer, "encoder", None), dict) else None,
            precision=precision,
            cached=settings.cached,
        )
        if weights.is_miniature:
            image.method_options = METHOD_OPTIONS
        towers = Towers(image, text, clip.weights, clip.mean, clip.std)
    if settings.normalization == "openai":
        towers = towers._replace(mean=OPENAI_MEAN, std=OPENAI_STD)
    return towers

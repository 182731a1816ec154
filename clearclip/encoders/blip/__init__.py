"""BLIP's retrieval model as a CLIP: its image-text contrastive branch, through Hugging Face ``transformers``.

``transformers`` is an optional package (``pip install 'clearclip[blip]'``), imported only when BLIP is asked for.
"""

from __future__ import annotations

import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from clearclip.checkpoints import Weights
from clearclip.encoders.blip.towers import BLIPImageEncoder, BLIPText, BLIPTokenizer
from clearclip.encoders.blip.weights import load_retrieval_model
from clearclip.encoders.casting import cast
from clearclip.text import TextEncoder

__all__ = ["BLIPImageEncoder", "BLIPText", "BLIPTokenizer", "load_blip"]


def load_blip(
    vit_type: str,
    pretrained: str | None,
    device: torch.device,
    precision: str,
    square: int | None,
    cached: bool,
) -> tuple[BLIPImageEncoder, TextEncoder, Weights, tuple[float, ...], tuple[float, ...]]:
    """Load BLIP's two towers.

    Args:
        vit_type: "ViT-B/16" or "ViT-L/16" ("ViT-L/14", the table's name of the large column, means the same).
        pretrained: :data:`~clearclip.checkpoints.DEFAULT` (the retrieval model on the Hugging Face hub), a repository
            there, a local folder in its layout, an original ``.pth`` checkpoint, or None for random weights.
        device: where to compute.
        precision: "fp32", "fp16" or "bf16"; LayerNorm stays in fp32.
        square: side in pixels to which every window is resized; None means the checkpoint's own image size.
        cached: keep text features on disk.

    Returns:
        Image encoder, text encoder, what was loaded, and the checkpoint's own mean and std of 0..255 RGB.

    Raises:
        UserError: ``transformers`` is missing; weights that cannot be found or fetched, are damaged, missing or left
            over (named); ``square`` is no multiple of the patch.
    """
    model, weights, tokenizer_source = load_retrieval_model(vit_type, pretrained)
    image_encoder = BLIPImageEncoder(model.vision_model, model.vision_proj, square)
    text = BLIPText(model.text_encoder, model.text_proj)
    for tower in (image_encoder, text):
        cast(tower, precision).eval().requires_grad_(False).to(device)
    tokenizer = BLIPTokenizer(tokenizer_source)
    text_encoder = TextEncoder(
        text,
        tokenizer,
        dim=image_encoder.dim,
        count_tokens=tokenizer.count,
        context_length=tokenizer.context_length,
        precision=precision,
        cached=cached,
    )
    # BLIP was trained with the mean and std of OpenAI's CLIP.
    mean, std = (tuple(255 * value for value in values) for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return image_encoder, text_encoder, weights, mean, std

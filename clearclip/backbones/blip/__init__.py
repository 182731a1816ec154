"""BLIP's retrieval model as a CLIP: its image-text contrastive branch, through Hugging Face ``transformers``.

``transformers`` is an optional package (``pip install 'clearclip[blip]'``), imported only when BLIP is asked for.
"""

from __future__ import annotations

import torch

from clearclip.backbones.blip.towers import BLIPImageEncoder, BLIPText, BLIPTokenizer
from clearclip.backbones.blip.weights import load_retrieval_model
from clearclip.backbones.casting import prepare
from clearclip.text import TextEncoder
from clearclip.weights import Weights

__all__ = ["BLIPImageEncoder", "BLIPText", "BLIPTokenizer", "load_blip"]


def load_blip(
    weights: Weights, device: torch.device, precision: str, square: int | None, cached: bool
) -> tuple[BLIPImageEncoder, TextEncoder]:
    """Load BLIP's two towers.

    Args:
        weights: ``pretrained`` is its tag (the published pre-training checkpoint), a repository on the Hugging Face
            hub, a local folder in its layout, an original ``.pth`` checkpoint, or "random".
        device: where to compute.
        precision: "fp32", "fp16" or "bf16"; LayerNorm stays in fp32.
        square: side in pixels to which every window is resized; None means the checkpoint's own image size.
        cached: keep text features on disk.

    Raises:
        UserError: ``transformers`` is missing; weights that cannot be found or fetched, are damaged, missing or left
            over (named); ``square`` is no multiple of the patch.
    """
    model, tokenizer_source = load_retrieval_model(weights)
    image = BLIPImageEncoder(model.vision_model, model.vision_proj, square)
    text = BLIPText(model.text_encoder, model.text_proj)
    for tower in (image, text):
        prepare(tower, device, precision, weights)
    tokenizer = BLIPTokenizer(tokenizer_source)
    return image, TextEncoder(text, tokenizer, dim=image.dim, padding=0, precision=precision, cached=cached)

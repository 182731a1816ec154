"""BLIP's two towers with the interface of CLIP's: dense image features, and the text encoder's class token."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearclip.encoders.base import DenseEncoder
from clearclip.errors import UserError
from clearclip.hub import fetch
from clearclip.methods import BlockParts, LastBlock

_UNCHANGED = LastBlock("qk", residual=True, ffn=True)


class BLIPImageEncoder(DenseEncoder):
    """Dense features of BLIP's image tower, a ViT that takes one image size: every window is resized to it first.

    Args:
        vision_model: a ``transformers`` ``BlipVisionModel``; its positional embedding is resized here, once.
        vision_proj: the projection into the space shared with the text.
        square: side of the windows that the tower sees, in pixels; None means the checkpoint's own image size.

    Raises:
        UserError: ``square`` is no multiple of the patch.
    """

    def __init__(self, vision_model: nn.Module, vision_proj: nn.Linear, square: int | None = None):
        super().__init__()
        self.vision_model = vision_model
        self.vision_proj = vision_proj
        patch = vision_model.embeddings.patch_embedding.kernel_size
        own_grid = math.isqrt(vision_model.embeddings.position_embedding.shape[1] - 1)
        square = own_grid * patch[0] if square is None else square
        if square < patch[0] or square % patch[0]:
            raise UserError(
                f"BLIP takes square windows of whole patches, and {square} pixels are no such multiple of {patch[0]}; "
                f"set slide_crop to {square // patch[0] * patch[0] or patch[0]}"
            )
        self.fixed_size = self.image_side = square
        self.patch_size = tuple(patch)
        self.own_grid = (square // patch[0], square // patch[1])
        self.dim = vision_proj.out_features
        # BLIP has no LayerScale. An identity per block marks the place where its X_attn is known (for hooks).
        self.scales = nn.ModuleList(nn.Identity() for _ in self.blocks)
        vision_model.embeddings.position_embedding = nn.Parameter(
            resize_positions(vision_model.embeddings.position_embedding.detach(), square // patch[0])
        )

    @property
    def blocks(self) -> nn.ModuleList:
        return self.vision_model.encoder.layers

    @property
    def parts(self) -> list[BlockParts]:
        return [
            BlockParts(
                ln_1=block.layer_norm1,
                in_proj_weight=block.self_attn.qkv.weight,
                in_proj_bias=block.self_attn.qkv.bias,
                heads=block.self_attn.num_heads,
                out_proj=block.self_attn.projection,
                scale_1=scale,
                ln_2=block.layer_norm2,
                mlp=block.mlp,
                scale_2=nn.Identity(),
            )
            for block, scale in zip(self.blocks, self.scales, strict=True)
        ]

    def run_block(self, index: int, tokens: Tensor) -> Tensor:
        # The same computation as transformers' own blocks, whose signature changes with the version.
        return _UNCHANGED([self.parts[index]], tokens)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches, the same for images of every size."""
        return self.own_grid

    def tokens(self, images: Tensor, position_resize: str) -> Tensor:
        embeddings = self.vision_model.embeddings
        size = (self.fixed_size, self.fixed_size)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False)
        patches = embeddings.patch_embedding(images.to(embeddings.patch_embedding.weight.dtype))
        patches = patches.flatten(2).transpose(1, 2)
        class_token = embeddings.class_embedding.to(patches.dtype).expand(len(patches), -1, -1)
        return torch.cat([class_token, patches], dim=1) + embeddings.position_embedding.to(patches.dtype)

    def head(self, patches: Tensor) -> Tensor:
        return self.vision_proj(self.vision_model.post_layernorm(patches))


def resize_positions(embedding: Tensor, side: int) -> Tensor:
    """Positional embeddings (1, 1+N, D) of a square grid, resized bicubically to ``side`` patches squared."""
    own = math.isqrt(embedding.shape[1] - 1)
    if own == side:
        return embedding
    patches = embedding[:, 1:].unflatten(1, (own, own)).permute(0, 3, 1, 2).float()
    patches = F.interpolate(patches, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([embedding[:, :1], patches.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1)


class BLIPText(nn.Module):
    """The text side: the text encoder without images, its class token, and the projection.

    Args:
        text_encoder: a ``transformers`` ``BlipTextModel``.
        text_proj: the projection into the space shared with the image.
    """

    def __init__(self, text_encoder: nn.Module, text_proj: nn.Linear):
        super().__init__()
        self.text_encoder = text_encoder
        self.text_proj = text_proj

    def encode_text(self, tokens: dict[str, Tensor]) -> Tensor:
        """Embeddings (B, E) of ``input_ids`` and ``attention_mask``, both (B, T) int64."""
        return self.text_proj(self.text_encoder(**tokens).last_hidden_state[:, 0])


class BLIPTokenizer:
    """BERT's lower-case tokenizer, padded and cut to 35 tokens. It is loaded when first used.

    Args:
        source: a folder with the tokenizer's files (``vocab.txt`` suffices), or a repository on the hub.
    """

    context_length = 35

    def __init__(self, source: str):
        self.source = source

    def __call__(self, texts: list[str]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` of the texts, both (len(texts), 35) int64."""
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.context_length, return_tensors="pt"
        )
        return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}

    def count(self, text: str) -> int:
        """Tokens of a text, and one more: a template and a word together have the start and the end once."""
        return len(self.tokenizer(text, add_special_tokens=False).input_ids) + 1

    @cached_property
    def tokenizer(self):
        """The ``transformers`` tokenizer.

        Raises:
            UserError: its files cannot be fetched or read.
        """
        from transformers import BertTokenizer

        remedy = "put bert-base-uncased's vocab.txt into the folder of the weights: words cannot be encoded without it"
        folder = self.source if Path(self.source).is_dir() else fetch(self.source, "vocab.txt", remedy=remedy).parent
        try:
            tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
            # Without files transformers 5 makes a tokenizer that knows no words, and says nothing.
            if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_ids):
                raise FileNotFoundError("vocab.txt")
        except Exception as error:  # whatever a damaged file raises
            raise UserError(
                f"BLIP's tokenizer ({folder}) cannot be loaded ({type(error).__name__}); {remedy}"
            ) from error
        return tokenizer

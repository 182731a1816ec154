"""BLIP's two towers with the interface of CLIP's: dense image features, and the text encoder's class token."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearclip.backbones.dense_encoder import DenseEncoder
from clearclip.backbones.tokenizers import check_no_paths
from clearclip.methods import BlockParts
from clearclip.utils.errors import UserError
from clearclip.utils.hub import fetch


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
        self.vision_model, self.vision_proj = vision_model, vision_proj
        embeddings = vision_model.embeddings
        patch, side = embeddings.patch_size, square or embeddings.image_size
        if side % patch:
            raise UserError(
                f"BLIP takes square windows of whole patches, and {side} pixels are no multiple of {patch}; "
                f"set slide_crop to {side // patch * patch or patch}"
            )
        self.fixed_size = self.image_size = side
        self.patch_size, self.grid_size = (patch, patch), (side // patch, side // patch)
        self.dim = vision_proj.out_features
        # By transformers' own function, which takes the new size from tokens; what is in them does not matter.
        tokens = torch.empty(1, 1 + (side // patch) ** 2, embeddings.position_embedding.shape[2])
        resized = embeddings.interpolate_pos_encoding(tokens, side, side).detach()
        embeddings.position_embedding = nn.Parameter(resized)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.vision_model.encoder.layers

    def parts(self, grid: tuple[int, int]) -> list[BlockParts]:
        return [
            BlockParts(
                ln_1=block.layer_norm1,
                in_proj_weight=block.self_attn.qkv.weight,
                in_proj_bias=block.self_attn.qkv.bias,
                heads=block.self_attn.num_heads,
                out_proj=block.self_attn.projection,
                scale_1=nn.Identity(),
                ln_2=block.layer_norm2,
                mlp=block.mlp,
                scale_2=nn.Identity(),
            )
            for block in self.blocks
        ]

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches, the same for images of every size."""
        return self.grid_size

    def tokens(self, images: Tensor, position_resize: str) -> Tensor:
        size = (self.fixed_size, self.fixed_size)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False)
        return self.vision_model.embeddings(images)

    def head(self, patches: Tensor) -> Tensor:
        return self.vision_proj(self.vision_model.post_layernorm(patches))


class BLIPText(nn.Module):
    """The text side: the text encoder without images, its class token, and the projection.

    Args:
        text_encoder: a ``transformers`` ``BlipTextModel``.
        text_proj: the projection into the space shared with the image.
    """

    def __init__(self, text_encoder: nn.Module, text_proj: nn.Linear):
        super().__init__()
        self.text_encoder, self.text_proj = text_encoder, text_proj

    def encode_text(self, tokens: dict[str, Tensor]) -> Tensor:
        """Embeddings (B, E) of ``input_ids`` and ``attention_mask``, both (B, T) int64."""
        # The class token, which stands before the words.
        return self.text_proj(self.text_encoder(**tokens).last_hidden_state[:, 0])


class BLIPTokenizer:
    """BERT's lower-case tokenizer, padded and cut to 35 tokens. It is loaded when first used.

    Args:
        source: a folder with the tokenizer's files (``vocab.txt`` suffices), or a repository on the hub.
    """

    def __init__(self, source: str):
        self.source = source

    def __call__(self, texts: list[str]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` of the texts, both (len(texts), 35) int64."""
        tokens = self._tokenizer(texts, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
        return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}

    @cached_property
    def _tokenizer(self):
        from transformers import BertTokenizer

        folder, remedy = self.source, "put bert-base-uncased's vocab.txt into the folder of BLIP's weights"
        if not Path(folder).is_dir():
            folder = fetch(folder, "vocab.txt", "tokenizer.json", remedy=remedy).parent
        check_no_paths(Path(folder))
        try:
            tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
            # Without files transformers 5 makes a tokenizer that knows no words, and says nothing.
            if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_ids):
                raise FileNotFoundError("vocab.txt")
        except Exception as error:  # whatever a missing or damaged file raises
            raise UserError(f"BLIP's tokenizer cannot be loaded from {folder} ({error}); {remedy}") from error
        return tokenizer

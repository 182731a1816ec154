"""DINO (ViT-B/16, self-supervised): an image tower to compare CLIP's statistics with. It knows no words.

``timm`` comes with ``open_clip_torch``; it is imported only when DINO is asked for.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from clearclip.backbones.base import DenseEncoder
from clearclip.backbones.casting import prepare
from clearclip.methods import BlockParts
from clearclip.utils.errors import UserError
from clearclip.utils.hub import fetch
from clearclip.weights import RANDOM, Weights


def load_dino(
    weights: Weights, device: torch.device, precision: str
) -> tuple[DINOImageEncoder, tuple[float, ...], tuple[float, ...]]:
    """Load DINO's ViT-B/16.

    Args:
        weights: ``pretrained`` is its tag (timm's, from the hub), a checkpoint file, or "random".
        device: where to compute.
        precision: "fp32", "fp16" or "bf16"; LayerNorm stays in fp32.

    Returns:
        Image encoder, and DINO's mean and std of 0..255 RGB.

    Raises:
        UserError: weights that cannot be fetched, read, or are not finite.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError("DINO needs the package timm: pip install timm") from error
    path = weights.pretrained
    if path == weights.tag:
        remedy = "download dino_vitbase16_pretrain.pth elsewhere and give the file as pretrained"
        path = fetch(f"timm/{weights.tag}", "model.safetensors", "pytorch_model.bin", remedy=remedy)
    elif path != RANDOM and not os.path.isfile(path):
        raise UserError(f"the DINO checkpoint {path} does not exist; check its path")
    try:
        overlay = None if path == RANDOM else {"file": str(path)}
        vit = timm.create_model(weights.tag, pretrained=path != RANDOM, pretrained_cfg_overlay=overlay)
    except Exception as error:  # whatever a damaged file raises
        raise UserError(f"{path} cannot be loaded as DINO's ViT-B/16: {str(error)[:400]}") from error
    mean, std = (tuple(255 * value for value in vit.pretrained_cfg[name]) for name in ("mean", "std"))
    return prepare(DINOImageEncoder(vit), device, precision, weights), mean, std


class DINOImageEncoder(DenseEncoder):
    """Dense features of a timm ``VisionTransformer``.

    Args:
        vit: the image tower.
    """

    def __init__(self, vit: nn.Module):
        super().__init__()
        self.vit = vit
        self.patch_size = tuple(vit.patch_embed.patch_size)
        self.grid_size = tuple(vit.patch_embed.grid_size)
        self.dim = vit.embed_dim
        self.image_size = vit.patch_embed.img_size[0]

    @property
    def blocks(self) -> nn.Sequential:
        return self.vit.blocks

    def parts(self, grid: tuple[int, int]) -> list[BlockParts]:
        return [
            BlockParts(
                ln_1=block.norm1,
                in_proj_weight=block.attn.qkv.weight,
                in_proj_bias=block.attn.qkv.bias,
                heads=block.attn.num_heads,
                out_proj=block.attn.proj,
                scale_1=block.ls1,
                ln_2=block.norm2,
                mlp=block.mlp,
                scale_2=block.ls2,
            )
            for block in self.blocks
        ]

    def tokens(self, images: Tensor, position_resize: str) -> Tensor:
        embed = self.vit.patch_embed
        patches = embed.proj(images.to(embed.proj.weight.dtype)).flatten(2).transpose(1, 2)
        class_token = self.vit.cls_token.to(patches.dtype).expand(len(patches), -1, -1)
        positions = self.positions(self.vit.pos_embed[0], self.grid(images), position_resize)
        return torch.cat([class_token, patches], dim=1) + positions.to(patches.dtype)

    def head(self, patches: Tensor) -> Tensor:
        return self.vit.norm(patches)

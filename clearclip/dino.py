"""DINO (ViT-B/16, self-supervised): an image tower to compare CLIP's statistics with. It knows no words.

``timm`` comes with ``open_clip_torch``; it is imported only when DINO is asked for.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from clearclip.casting import cast
from clearclip.checkpoints import DEFAULT, Weights
from clearclip.errors import UserError
from clearclip.image_encoder import Method, check_depth, resize_positions
from clearclip.last_block import BlockParts

MODEL = "vit_base_patch16_224.dino"


def load_dino(
    vit_type: str, pretrained: str | None, method: Method, device: torch.device, precision: str
) -> tuple[DINOImageEncoder, None, Weights, tuple[float, ...], tuple[float, ...]]:
    """Load DINO's ViT-B/16.

    Args:
        vit_type: "ViT-B/16", the only one here.
        pretrained: :data:`~clearclip.checkpoints.DEFAULT` (timm's, from the hub), a checkpoint file, or None for
            random weights.
        method: how the last block is computed; the statistics of DINO itself want it unchanged.
        device: where to compute.
        precision: "fp32", "fp16" or "bf16"; LayerNorm stays in fp32.

    Returns:
        Image encoder, None (there is no text side), what was loaded, and DINO's mean and std of 0..255 RGB.

    Raises:
        UserError: another ``vit_type``, or weights that cannot be fetched, read, or are not finite.
    """
    if vit_type != "ViT-B/16":
        raise UserError(f"unknown vit_type {vit_type!r} for DINO; choose ViT-B/16")
    vit = build_dino(pretrained)
    encoder = cast(DINOImageEncoder(vit, method), precision).eval().requires_grad_(False).to(device)
    mean, std = (tuple(255 * value for value in vit.pretrained_cfg[name]) for name in ("mean", "std"))
    return encoder, None, Weights("DINO ViT-B/16", MODEL if pretrained == DEFAULT else pretrained), mean, std


def build_dino(pretrained: str | None) -> nn.Module:
    """timm's module. Arguments and errors as for :func:`load_dino`."""
    try:
        import timm
    except ImportError as error:
        raise UserError("DINO needs the package timm: pip install timm") from error
    from_file = pretrained not in (None, DEFAULT)
    if from_file and not os.path.isfile(pretrained):
        raise UserError(f"the DINO checkpoint {pretrained} does not exist; check its path")
    try:
        overlay = {"file": pretrained} if from_file else None
        vit = timm.create_model(MODEL, pretrained=pretrained is not None, pretrained_cfg_overlay=overlay)
    except Exception as error:  # whatever the network, the hub client or a damaged file raises
        if from_file:
            brief = " ".join(str(error).split())[:400]
            raise UserError(f"{pretrained} cannot be loaded as DINO's ViT-B/16: {brief}") from error
        raise UserError(
            f"DINO's weights (timm/{MODEL}) cannot be fetched from here ({type(error).__name__}); download "
            "dino_vitbase16_pretrain.pth elsewhere and give the file as pretrained"
        ) from error
    for name, tensor in vit.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"the DINO weights have NaN or infinite values in {name}; get them anew")
    return vit


class DINOImageEncoder(nn.Module):
    """A timm ``VisionTransformer`` with the interface of :class:`~clearclip.image_encoder.ImageEncoder`.

    Args:
        vit: its weights are used in place.
        method: how the last blocks are computed.

    Raises:
        UserError: the tower has fewer blocks than the method needs.
    """

    fixed_size: int | None = None  # takes windows of any size that is a multiple of the patch

    def __init__(self, vit: nn.Module, method: Method):
        super().__init__()
        self.vit = vit
        self.method = method
        self.patch_size: tuple[int, int] = tuple(vit.patch_embed.patch_size)
        self.dim: int = vit.embed_dim

    @property
    def method(self) -> Method:
        """How the last blocks are computed; may be replaced at any time, the weights stay."""
        return self._method

    @method.setter
    def method(self, method: Method) -> None:
        check_depth(method, len(self.vit.blocks))
        self._method = method

    @property
    def blocks(self) -> nn.Sequential:
        """The transformer blocks in order."""
        return self.vit.blocks

    @property
    def parts(self) -> list[BlockParts]:
        """The parts of every block, in order."""
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

    def forward(self, images: Tensor) -> Tensor:
        """Dense features (B, H // 16, W // 16, D) of normalised images (B, 3, H, W); not normalised."""
        tokens = self.tokens(images)
        depth = self.method.depth
        for block in self.blocks[:-depth]:
            tokens = block(tokens)
        tokens = self.method(self.parts[-depth:], tokens)
        return self.vit.norm(tokens[:, 1:]).unflatten(1, self.grid(images))

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of ``images`` (…, H, W)."""
        return images.shape[-2] // self.patch_size[0], images.shape[-1] // self.patch_size[1]

    def tokens(self, images: Tensor) -> Tensor:
        """What the first block reads: patch and class embeddings with positions, (B, 1+N, D)."""
        embed = self.vit.patch_embed
        patches = embed.proj(images.to(embed.proj.weight.dtype)).flatten(2).transpose(1, 2)
        class_token = self.vit.cls_token.to(patches.dtype).expand(len(patches), -1, -1)
        own = self.vit.pos_embed[0]
        positions = resize_positions(own, embed.grid_size, self.grid(images), "scale_factor")
        return torch.cat([class_token, patches], dim=1) + positions.to(patches.dtype)

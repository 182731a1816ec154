"""OpenCLIP's plain ViT towers."""

from __future__ import annotations

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from clearclip.backbones.dense_encoder import SUPPORTED, TOWERS, DenseEncoder
from clearclip.backbones.trunk import apply_layer_norm, is_plain, run_block
from clearclip.methods import BlockParts
from clearclip.utils.errors import UserError


@TOWERS.register_module(VisionTransformer)
class ImageEncoder(DenseEncoder):
    """Dense features of an unmodified OpenCLIP ``VisionTransformer``.

    Args:
        visual: the image tower.

    Raises:
        UserError: the tower is not a plain ViT.
    """

    mixed = False  # whether unchanged blocks are computed in bf16

    def __init__(self, visual: nn.Module):
        super().__init__()
        check_is_plain_vit(visual)
        self.visual = visual
        self.patch_size = visual.patch_size
        self.grid_size = tuple(visual.grid_size)
        self.dim = visual.output_dim
        self.image_size = visual.image_size[0]

    @property
    def blocks(self) -> nn.ModuleList:
        return self.visual.transformer.resblocks

    def parts(self, grid: tuple[int, int]) -> list[BlockParts]:
        return [
            BlockParts(
                ln_1=block.ln_1,
                in_proj_weight=block.attn.in_proj_weight,
                in_proj_bias=block.attn.in_proj_bias,
                heads=block.attn.num_heads,
                out_proj=block.attn.out_proj,
                scale_1=block.ls_1,
                ln_2=block.ln_2,
                mlp=block.mlp,
                scale_2=block.ls_2,
            )
            for block in self.blocks
        ]

    def tokens(self, images: Tensor, position_resize: str) -> Tensor:
        visual = self.visual
        patches = visual.conv1(images.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        positions = self.positions(visual.positional_embedding, self.grid(images), position_resize)
        tokens = torch.cat([class_token, patches], dim=1) + positions.to(patches.dtype)
        return apply_layer_norm(visual.ln_pre, tokens)

    def compute_mixed(self) -> None:
        # Of its tokens only type and device are looked at.
        example = torch.empty(0, 0, 0)
        if not all(is_plain(block, example) for block in self.blocks):
            super().compute_mixed()  # says that it cannot be
        self.mixed = True

    def run_block(self, index: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return run_block(self.blocks[index], tokens, self.mixed)

    def head(self, patches: Tensor) -> Tensor:
        patches = apply_layer_norm(self.visual.ln_post, patches)
        if self.visual.proj is None:
            return patches
        return patches @ self.visual.proj


def check_is_plain_vit(visual: nn.Module) -> None:
    """Raise a UserError that names what in this image tower does not fit, and what is supported."""
    if visual.attn_pool is not None:
        raise UserError(f"the image tower pools by attention (attentional_pool, as CoCa does); {SUPPORTED}")
    for block in visual.transformer.resblocks:
        if type(block) is not ResidualAttentionBlock:
            raise UserError(f"the image tower is built of {type(block).__name__}; {SUPPORTED}")
        if not block.attn.batch_first:
            raise UserError(
                f"open_clip {open_clip.__version__} feeds blocks sequence-first; install open_clip_torch>=3"
            )

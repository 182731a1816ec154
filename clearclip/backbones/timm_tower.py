"""timm's ViTs (VisionTransformer and Eva), as OpenCLIP's TimmModel holds them: SigLIP, EVA, PE, MobileCLIP, ViTamin.

Such towers end in a pool over patches. What a patch alone becomes is taken as its embedding: a norm or projection that
follows the pool is applied to every patch, and of attention pooling the value path (values, output projection, FFN) is
kept, as MaskCLIP does with the last block.
"""

from __future__ import annotations

import copy
from functools import partial

import torch
from open_clip.timm_model import TimmModel
from timm.layers import Attention, AttentionPoolLatent, AttentionRope, HybridEmbed, PatchEmbed, apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from clearclip.backbones.dense_encoder import SUPPORTED, TOWERS, DenseEncoder
from clearclip.methods import BlockParts
from clearclip.utils.errors import UserError


@TOWERS.register_module(TimmModel)
class TimmEncoder(DenseEncoder):
    """Dense features of a timm ``VisionTransformer`` or ``Eva``.

    Args:
        visual: the image tower: the ViT as ``trunk``, and what OpenCLIP adds to it as ``head``.

    Raises:
        UserError: the tower is no such ViT, or has parts that dense features cannot have.
    """

    def __init__(self, visual: nn.Module):
        super().__init__()
        check_is_vit(visual)
        self.visual = visual
        trunk, embed = visual.trunk, visual.trunk.patch_embed
        self.patch_size = tuple(embed.feat_ratio(as_scalar=False))
        self.grid_size = tuple(embed.grid_size)
        self.image_size = embed.img_size[0]
        self.num_prefix_tokens = trunk.num_prefix_tokens
        self.has_class_token = trunk.cls_token is not None
        linear = [one for part in (trunk.head, visual.head) for one in part.modules() if isinstance(one, nn.Linear)]
        self.dim = linear[-1].out_features if linear else trunk.embed_dim

    @property
    def blocks(self) -> nn.Module:
        return self.visual.trunk.blocks

    def parts(self, grid: tuple[int, int]) -> list[BlockParts]:
        return [
            block_parts(block, rope)
            for block, rope in zip(self.visual.trunk.blocks, self._rotations(grid), strict=True)
        ]

    def tokens(self, images: Tensor, position_resize: str) -> Tensor:
        trunk, embed, grid = self.visual.trunk, self.visual.trunk.patch_embed, self.grid(images)
        # Not by the module's own forward, which insists on the trained size.
        stem = getattr(embed, "backbone", nn.Identity())
        patches = embed.proj(stem(images.to(next(embed.parameters()).dtype))).flatten(2).transpose(1, 2)
        patches = embed.norm(patches) if hasattr(embed, "norm") else patches
        prefix = [token for token in (trunk.cls_token, trunk.reg_token) if token is not None]
        prefix = [token.to(patches.dtype).expand(len(patches), -1, -1) for token in prefix]
        tokens = torch.cat([*prefix, patches], dim=1)
        if trunk.pos_embed is not None:
            positions = self.positions(trunk.pos_embed[0], grid, position_resize).to(tokens.dtype)
            without = tokens.shape[1] - len(positions)  # in some towers only patches have positions
            tokens = torch.cat([tokens[:, :without], tokens[:, without:] + positions], dim=1)
        return trunk.norm_pre(tokens)

    def run_block(self, index: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        block = self.visual.trunk.blocks[index]
        if getattr(self.visual.trunk, "rope", None) is None:
            return block(tokens)
        return block(tokens, rope=self._rotations(grid)[index])

    def head(self, patches: Tensor) -> Tensor:
        trunk = self.visual.trunk
        patches = trunk.norm(patches)
        if trunk.attn_pool is not None:
            pool = trunk.attn_pool
            patches = pool.proj(pool.kv(patches).chunk(2, dim=-1)[1])
            patches = patches if pool.mlp is None else patches + pool.mlp(pool.norm(patches))
        return self.visual.head(trunk.head(trunk.fc_norm(patches)))

    def _rotations(self, grid: tuple[int, int]) -> list[Tensor | None]:
        """For each block, sines and cosines of the rotary embedding of a grid of patches, (N, 2 D'), or None."""
        rope = getattr(self.visual.trunk, "rope", None)
        trunk_blocks = self.visual.trunk.blocks
        if rope is None:
            return [None] * len(trunk_blocks)

        def compute() -> list[Tensor]:
            rope_of_grid = copy.deepcopy(rope)
            rope_of_grid.update_feat_shape(grid)
            rotation = rope_of_grid.get_embed(shape=grid)
            return list(rotation) if self.visual.trunk.rope_mixed else [rotation] * len(trunk_blocks)

        return self.once(("rotations", grid, next(self.visual.parameters()).device), compute)


def block_parts(block: nn.Module, rotation: Tensor | None) -> BlockParts:
    attention, after = block.attn, isinstance(block, EvaBlockPostNorm | ResPostBlock)
    if attention.qkv is None:
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight, bias = [one.weight for one in projections], [one.bias for one in projections]
    else:
        weight, bias = attention.qkv.weight, attention.qkv.bias
        if getattr(attention, "q_bias", None) is not None:
            bias = (attention.q_bias, None, attention.v_bias)
    scales = [getattr(block, name, None) for name in ("gamma_1", "gamma_2")]
    scales = [nn.Identity() if scale is None else partial(torch.mul, scale) for scale in scales]
    if after:
        scales = [block.norm1, block.norm2]
    elif isinstance(block, Block):
        scales = [block.ls1, block.ls2]
    rotate = None
    if rotation is not None:
        rotate = partial(_rotate, rotation, attention.rotate_half)
    return BlockParts(
        ln_1=nn.Identity() if after else block.norm1,
        in_proj_weight=weight,
        in_proj_bias=bias,
        heads=attention.num_heads,
        out_proj=attention.proj,
        scale_1=scales[0],
        ln_2=nn.Identity() if after else block.norm2,
        mlp=block.mlp,
        scale_2=scales[1],
        q_norm=attention.q_norm,
        k_norm=attention.k_norm,
        rotate=rotate,
        inner_norm=attention.norm,
    )


def _rotate(rotation: Tensor, half: bool, heads: Tensor) -> Tensor:
    """Rotate the last N tokens, the patches, of (B, heads, T, D)."""
    prefix, patches = heads.split([heads.shape[2] - rotation.shape[-2], rotation.shape[-2]], dim=2)
    return torch.cat([prefix, apply_rot_embed_cat(patches, rotation, half=half).type_as(heads)], dim=2)


def as_visual(vit: nn.Module, head: nn.Module | None = None) -> nn.Module:
    """A ViT of timm's in the form in which OpenCLIP has it: ``trunk``, and the ``head`` that follows it, if any."""
    visual = nn.Module()
    visual.trunk = vit
    visual.head = nn.Identity() if head is None else head
    return visual


def check_is_vit(visual: TimmModel) -> None:
    """Raise a UserError that names what in this image tower does not fit, and what is supported."""
    trunk, embed = visual.trunk, getattr(visual.trunk, "patch_embed", None)
    if type(trunk) not in (VisionTransformer, Eva):
        raise UserError(f"the image tower is timm's {type(trunk).__name__}; {SUPPORTED}")
    rope, pool = getattr(trunk, "rope", None), trunk.attn_pool
    has_grid = getattr(rope, "feat_shape", None) is not None
    parts = [
        (type(embed).__name__, type(embed) in (PatchEmbed, HybridEmbed)),
        (f"pooling by {trunk.global_pool or 'nothing'}", trunk.global_pool in ("token", "avg", "map")),
        (type(pool).__name__, pool is None or (type(pool) is AttentionPoolLatent and pool.pos_embed is None)),
        ("a pool of OpenCLIP's", not hasattr(visual.head, "pool")),
        (type(rope).__name__, rope is None or type(rope).__name__ == "RotaryEmbeddingDinoV3" or has_grid),
    ]
    for block in trunk.blocks:
        attention = getattr(block, "attn", None)
        parts += [
            (type(block).__name__, type(block) in (Block, ResPostBlock, EvaBlock, EvaBlockPostNorm)),
            (type(attention).__name__, type(attention) in (Attention, EvaAttention, AttentionRope)),
            ("gated attention", getattr(attention, "gate", None) is None),
            ("grouped queries", getattr(attention, "num_kv_groups", 1) == 1),
        ]
    for part, fits in parts:
        if not fits:
            raise UserError(f"the image tower has {part}; {SUPPORTED}")

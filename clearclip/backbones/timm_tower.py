"""timm's ViTs (VisionTransformer and Eva), as OpenCLIP's TimmModel holds them: SigLIP, EVA, PE, MobileCLIP, ViTamin.

Such towers end in a pool over patches. What a patch alone becomes is taken as its embedding: a norm or projection that
follows the pool is applied to every patch, and of attention pooling the value path (values, output projection, FFN) is
kept, as MaskCLIP does with the last block.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

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
        # The last linear layer behind the trunk, if there is any, decides.
        self.dim = trunk.embed_dim
        for module in [*trunk.head.modules(), *visual.head.modules()]:
            if isinstance(module, nn.Linear):
                self.dim = module.out_features

    @property
    def blocks(self) -> nn.Module:
        return self.visual.trunk.blocks

    def parts(self, grid: tuple[int, int]) -> list[BlockParts]:
        blocks_and_rotations = zip(self.visual.trunk.blocks, self._rotations(grid), strict=True)
        return [block_parts(block, rotation) for block, rotation in blocks_and_rotations]

    def tokens(self, images: Tensor, position_resize: str) -> Tensor:
        trunk = self.visual.trunk
        embed = trunk.patch_embed
        grid = self.grid(images)
        # Not by the module's own forward, which insists on the trained size.
        stem = getattr(embed, "backbone", nn.Identity())
        patches = embed.proj(stem(images.to(next(embed.parameters()).dtype))).flatten(2).transpose(1, 2)
        if hasattr(embed, "norm"):
            patches = embed.norm(patches)
        sequence = [patches]
        for token in (trunk.reg_token, trunk.cls_token):
            if token is not None:
                sequence.insert(0, token.to(patches.dtype).expand(len(patches), -1, -1))
        # Class token, registers, patches: the order in which all of timm's ViTs have them.
        tokens = torch.cat(sequence, dim=1)
        if trunk.pos_embed is not None:
            positions = self.positions(trunk.pos_embed[0], grid, position_resize).to(tokens.dtype)
            # In some towers only patches have positions.
            count = tokens.shape[1] - len(positions)
            tokens = torch.cat([tokens[:, :count], tokens[:, count:] + positions], dim=1)
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
            if pool.mlp is not None:
                patches = patches + pool.mlp(pool.norm(patches))
        return self.visual.head(trunk.head(trunk.fc_norm(patches)))

    def _rotations(self, grid: tuple[int, int]) -> list[Tensor | None]:
        """For each block, sines and cosines of the rotary embedding of a grid of patches, (N, 2 D'), or None."""
        rope = getattr(self.visual.trunk, "rope", None)
        trunk_blocks = self.visual.trunk.blocks
        if rope is None:
            return [None] * len(trunk_blocks)

        def compute() -> list[Tensor]:
            # A copy, since the module keeps one grid, and other threads may use it for another.
            rope_of_grid = copy.deepcopy(rope)
            rope_of_grid.update_feat_shape(grid)
            rotation = rope_of_grid.get_embed(shape=grid)
            # "Mixed" towers learn the frequencies of each block.
            if self.visual.trunk.rope_mixed:
                return list(rotation)
            return [rotation] * len(trunk_blocks)

        return self.cached_value(("rotations", grid, next(self.visual.parameters()).device), compute)


def block_parts(block: nn.Module, rotation: Tensor | None) -> BlockParts:
    """The parts of a block of timm's.

    Args:
        block: a ``Block``, ``ResPostBlock``, ``EvaBlock`` or ``EvaBlockPostNorm``.
        rotation: sines and cosines of the rotary embedding, see :meth:`TimmEncoder._rotations`; None for none.
    """
    attention = block.attn
    weight, bias = _in_projection(attention)
    norms = [block.norm1, block.norm2]
    if isinstance(block, EvaBlockPostNorm | ResPostBlock):
        # The norm follows attention and FFN there, where others have a LayerScale.
        scales, norms = norms, [nn.Identity(), nn.Identity()]
    elif isinstance(block, Block):
        scales = [block.ls1, block.ls2]
    else:
        scales = [_layer_scale(block.gamma_1), _layer_scale(block.gamma_2)]
    rotate = None
    if rotation is not None:
        rotate = partial(_rotate, rotation, attention.rotate_half)
    return BlockParts(
        ln_1=norms[0],
        in_proj_weight=weight,
        in_proj_bias=bias,
        heads=attention.num_heads,
        out_proj=attention.proj,
        scale_1=scales[0],
        ln_2=norms[1],
        mlp=block.mlp,
        scale_2=scales[1],
        q_norm=attention.q_norm,
        k_norm=attention.k_norm,
        rotate=rotate,
        inner_norm=attention.norm,
    )


def _in_projection(attention: nn.Module) -> tuple[Any, Any]:
    """Weights and biases of queries, keys and values, as :class:`BlockParts` takes them."""
    if attention.qkv is None:
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        return [projection.weight for projection in projections], [projection.bias for projection in projections]
    if getattr(attention, "q_bias", None) is not None:
        return attention.qkv.weight, (attention.q_bias, None, attention.v_bias)  # keys have none in Eva
    return attention.qkv.weight, attention.qkv.bias


def _layer_scale(factor: Tensor | None) -> Callable[[Tensor], Tensor]:
    if factor is None:
        return nn.Identity()
    return partial(torch.mul, factor)


def _rotate(rotation: Tensor, half: bool, heads: Tensor) -> Tensor:
    """Rotate the last N tokens, the patches, of (B, heads, T, D)."""
    patch_count = rotation.shape[-2]
    prefix, patches = heads.split([heads.shape[2] - patch_count, patch_count], dim=2)
    # Sines and cosines may be of another precision than the tokens.
    rotated = apply_rot_embed_cat(patches, rotation, half=half).type_as(heads)
    return torch.cat([prefix, rotated], dim=2)


def as_visual(vit: nn.Module, head: nn.Module | None = None) -> nn.Module:
    """A ViT of timm's in the form in which OpenCLIP has it: ``trunk``, and the ``head`` that follows it, if any."""
    visual = nn.Module()
    visual.trunk = vit
    visual.head = nn.Identity()
    if head is not None:
        visual.head = head
    return visual


def check_is_vit(visual: TimmModel) -> None:
    """Raise a UserError that names what in this image tower does not fit, and what is supported."""
    trunk, embed = visual.trunk, getattr(visual.trunk, "patch_embed", None)
    if type(trunk) not in (VisionTransformer, Eva):
        raise UserError(f"the image tower is timm's {type(trunk).__name__}; {SUPPORTED}")
    rope, pool = getattr(trunk, "rope", None), trunk.attn_pool
    # An embedding that knows its grid can be made for another one; DINOv3's is made for every grid.
    rope_fits = rope is None or getattr(rope, "feat_shape", None) is not None
    rope_fits = rope_fits or type(rope).__name__ == "RotaryEmbeddingDinoV3"
    pool_fits = pool is None or (type(pool) is AttentionPoolLatent and pool.pos_embed is None)
    requirements = [
        (type(embed).__name__, type(embed) in (PatchEmbed, HybridEmbed)),
        (f"pooling by {trunk.global_pool or 'nothing'}", trunk.global_pool in ("token", "avg", "map")),
        (type(pool).__name__, pool_fits),
        ("a pool of OpenCLIP's", not hasattr(visual.head, "pool")),
        (type(rope).__name__, rope_fits),
    ]
    for block in trunk.blocks:
        attention = getattr(block, "attn", None)
        requirements += [
            (type(block).__name__, type(block) in (Block, ResPostBlock, EvaBlock, EvaBlockPostNorm)),
            (type(attention).__name__, type(attention) in (Attention, EvaAttention, AttentionRope)),
            ("gated attention", getattr(attention, "gate", None) is None),
            ("grouped queries", getattr(attention, "num_kv_groups", 1) == 1),
        ]
    for feature, is_supported in requirements:
        if not is_supported:
            raise UserError(f"the image tower has {feature}; {SUPPORTED}")

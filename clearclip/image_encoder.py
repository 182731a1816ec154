"""An image tower turned into dense features: one embedding per patch, in the space of the text."""

from __future__ import annotations

from typing import Protocol

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from clearclip.errors import UserError
from clearclip.last_block import BlockParts

SUPPORTED = "supported are OpenCLIP's plain ViT towers (VisionTransformer), such as ViT-B-16 or ViT-L-14"


class Method(Protocol):
    """What computes the last blocks: :class:`~clearclip.last_block.LastBlock`, :class:`~clearclip.gem.GEM`, yours.

    ``depth``: how many blocks from the end it computes itself. ``position_resize``: "scale_factor" or "size".
    """

    depth: int
    position_resize: str

    def __call__(self, blocks: list[BlockParts], x: Tensor) -> Tensor:
        """Tokens before these blocks to tokens after them, (B, 1+N, D) both."""


class ImageEncoder(nn.Module):
    """Dense features of an unmodified OpenCLIP ``VisionTransformer``.

    Args:
        visual: the image tower; its weights are used in place, nothing is copied or patched.
        method: how the last blocks are computed.

    Raises:
        UserError: the tower is not a plain ViT, or has fewer blocks than the method needs.
    """

    fixed_size: int | None = None  # takes windows of any size that is a multiple of the patch

    def __init__(self, visual: nn.Module, method: Method):
        super().__init__()
        check_is_plain_vit(visual)
        self.visual = visual
        self.method = method
        self.patch_size: tuple[int, int] = visual.patch_size
        self.dim: int = visual.output_dim
        self._positions: dict[tuple, Tensor] = {}

    @property
    def method(self) -> Method:
        """How the last blocks are computed; may be replaced at any time, the weights stay."""
        return self._method

    @method.setter
    def method(self, method: Method) -> None:
        check_depth(method, len(self.visual.transformer.resblocks))
        self._method = method

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks in order (for hooks that gather statistics)."""
        return self.visual.transformer.resblocks

    @property
    def parts(self) -> list[BlockParts]:
        """The parts of every block, in order."""
        return [BlockParts.of_open_clip(block) for block in self.blocks]

    def forward(self, images: Tensor) -> Tensor:
        """Dense features.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of the patch.

        Returns:
            (B, H // patch, W // patch, E): an embedding per patch, not normalised, in the weights' dtype.
        """
        tokens = self.tokens(images)
        depth = self.method.depth
        for block in self.blocks[:-depth]:
            tokens = block(tokens)
        tokens = self.method(self.parts[-depth:], tokens)
        tokens = self.visual.ln_post(tokens[:, 1:])
        if self.visual.proj is not None:
            tokens = tokens @ self.visual.proj
        return tokens.unflatten(1, self.grid(images))

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of ``images`` (…, H, W)."""
        return images.shape[-2] // self.patch_size[0], images.shape[-1] // self.patch_size[1]

    def tokens(self, images: Tensor) -> Tensor:
        """What the first block reads: patch and class embeddings with positions, (B, 1+N, D)."""
        visual = self.visual
        patches = visual.conv1(images.to(visual.conv1.weight.dtype))
        grid = tuple(patches.shape[-2:])
        patches = patches.flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = torch.cat([class_token, patches], dim=1)
        return visual.ln_pre(tokens + self.positions(grid).to(tokens.dtype))

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Positional embeddings for a grid of patches, (1+N, D), resized once per grid."""
        embedding = self.visual.positional_embedding
        how = self.method.position_resize
        # The version counts in-place changes, such as load_state_dict.
        key = (grid, how, embedding.device, embedding.dtype, embedding._version)
        if key not in self._positions:
            if len(self._positions) >= 64:  # whole images come in many sizes
                self._positions.clear()
            self._positions[key] = resize_positions(embedding.detach(), self.visual.grid_size, grid, how)
        return self._positions[key]


def resize_positions(embedding: Tensor, old: tuple[int, int], new: tuple[int, int], how: str) -> Tensor:
    """Resize the patch part of positional embeddings bicubically; the class token's is kept.

    Args:
        embedding: (1 + old[0] * old[1], D).
        old: the checkpoint's grid (rows, columns).
        new: the wanted grid.
        how: "scale_factor" passes (new + 0.1) / old as scale to the interpolation, as published; the numbers
            differ slightly from those of "size", which GEM uses (antialiased).

    Returns:
        (1 + new[0] * new[1], D)
    """
    if tuple(new) == tuple(old):
        return embedding
    cls, patches = embedding[:1], embedding[1:]
    patches = patches.reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    if how == "size":
        patches = F.interpolate(patches, size=new, mode="bicubic", align_corners=False, antialias=True)
    else:
        scale = ((new[0] + 0.1) / old[0], (new[1] + 0.1) / old[1])
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
    patches = patches.permute(0, 2, 3, 1).flatten(0, 2)
    return torch.cat([cls, patches.to(embedding.dtype)])


def check_depth(method: Method, blocks: int) -> None:
    """Raise a UserError where a tower has fewer blocks than the method computes."""
    if blocks < method.depth:
        raise UserError(
            f"{type(method).__name__} works on the last {method.depth} blocks, but this model has {blocks}; "
            "choose a deeper model or another model_type"
        )


def check_is_plain_vit(visual: nn.Module) -> None:
    """Raise a UserError that names what in this image tower does not fit, and what is supported."""
    if not isinstance(visual, VisionTransformer):
        raise UserError(f"the image tower is a {type(visual).__name__}; {SUPPORTED}")
    if visual.attn_pool is not None:
        raise UserError(f"the image tower pools by attention (attentional_pool, as CoCa does); {SUPPORTED}")
    for block in visual.transformer.resblocks:
        if type(block) is not ResidualAttentionBlock:
            raise UserError(f"the image tower is built of {type(block).__name__}; {SUPPORTED}")
        if not block.attn.batch_first:
            raise UserError(
                f"open_clip {open_clip.__version__} feeds blocks sequence-first; install open_clip_torch>=3"
            )

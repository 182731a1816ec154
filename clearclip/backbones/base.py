"""What all image towers share: the trunk runs once, and every method turns its tokens into dense features."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, cat, nn

from clearclip.methods import BlockParts, Context, Method
from clearclip.utils.errors import UserError


class DenseEncoder(nn.Module):
    """An image tower as dense features: one embedding per patch, in the space of the text.

    A tower has ``blocks`` (its transformer blocks in order), ``parts`` (the parts of each), :meth:`tokens` and
    :meth:`head`; its weights are used in place, nothing is copied or patched.

    Attributes:
        patch_size: height and width of a patch in pixels.
        own_grid: rows and columns of patches that the positional embeddings were trained for.
        dim: E, the length of an embedding.
        image_side: side in pixels of the images that the tower was trained on.
        fixed_size: the only side of windows that the tower takes, None for any multiple of the patch.
        prefix: tokens before the patches.
    """

    patch_size: tuple[int, int]
    own_grid: tuple[int, int]
    dim: int
    image_side: int
    fixed_size: int | None = None
    prefix = 1

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks in order (for hooks that gather statistics)."""
        raise NotImplementedError

    @property
    def parts(self) -> list[BlockParts]:
        """The parts of every block, in order."""
        raise NotImplementedError

    def tokens(self, images: Tensor, position_resize: str) -> Tensor:
        """What the first block reads, (B, 1+N, D); see :func:`resize_positions` for the second argument."""
        raise NotImplementedError

    def head(self, patches: Tensor) -> Tensor:
        """Patch tokens after the last block, (B, N, D), to embeddings (B, N, E)."""
        raise NotImplementedError

    def run_block(self, index: int, tokens: Tensor) -> Tensor:
        """One unchanged block, (B, 1+N, D) to the same."""
        return self.blocks[index](tokens)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of ``images`` (…, H, W)."""
        return images.shape[-2] // self.patch_size[0], images.shape[-1] // self.patch_size[1]

    def check(self, method: Method) -> None:
        """Raise a UserError where the tower has fewer blocks than the method needs."""
        count = len(self.blocks)
        method.earlier(count)
        if count < method.depth:
            raise UserError(
                f"{method.label} works on the last {method.depth} blocks, but this model has {count}; "
                "choose a deeper model or another method"
            )

    def forward(self, images: Tensor, methods: Sequence[Method]) -> list[Tensor]:
        """Dense features by several methods. Blocks that are the same for all of them run once.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of the patch.
            methods: how the last blocks are computed.

        Returns:
            For each method (B, H // patch, W // patch, E): an embedding per patch, not normalised, in the weights'
            dtype.
        """
        grid = self.grid(images)
        # Where nothing is resized, all methods read the same tokens.
        resizes = [method.position_resize if grid != self.own_grid else "scale_factor" for method in methods]
        features: list[Tensor] = [None] * len(methods)
        for resize in dict.fromkeys(resizes):
            group = [index for index, own in enumerate(resizes) if own == resize]
            outputs = self._run(self.tokens(images, resize), [methods[index] for index in group], grid)
            for index, tokens in zip(group, outputs, strict=True):
                features[index] = self.head(tokens[:, self.prefix :]).unflatten(1, grid)
        return features

    def _run(self, tokens: Tensor, methods: Sequence[Method], grid: tuple[int, int]) -> list[Tensor]:
        """Tokens before the first block to those after the last one, by each method."""
        parts = self.parts
        starts = [len(parts) - method.depth for method in methods]
        kept = {*starts, *(index for method in methods for index in method.earlier(len(parts)))}
        inputs = {}
        for index in range(max(kept) + 1):
            if index in kept:
                inputs[index] = tokens
            if index < max(kept):
                tokens = self.run_block(index, tokens)
        context = Context(grid, self.prefix, inputs)
        return [method(parts, inputs[start], context) for method, start in zip(methods, starts, strict=True)]


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
    return cat([cls, patches.to(embedding.dtype)])

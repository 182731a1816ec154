"""What all image towers share: the trunk runs once, and every method turns its tokens into dense features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, cat, nn

from clearclip.methods import NEEDS, BlockParts, CachedBlock, Context, LastBlock, Method, SecondEncoderKey
from clearclip.methods.result_checks import check_returned_tokens
from clearclip.utils.errors import UserError

#: A block as CLIP has it.
UNCHANGED = LastBlock("qk", residual=True, ffn=True)
SUPPORTED = "supported are ViTs: OpenCLIP's own (such as ViT-B-16) and timm's (such as ViT-B-16-SigLIP or EVA02-B-16)"
#: What depends on the size of the images is kept for so many sizes.
CACHED_GRIDS = 8


class DenseEncoder(nn.Module):
    """An image tower as dense features: one embedding per patch, in the space of the text.

    A tower has ``blocks`` (its transformer blocks in order), :meth:`parts` (the parts of each), :meth:`tokens` and
    :meth:`head`; its weights are used in place, nothing is copied or patched. P is ``num_prefix_tokens``.

    Attributes:
        patch_size: height and width of a patch in pixels.
        grid_size: rows and columns of patches that the positional embeddings were trained for.
        dim: E, the length of an embedding.
        image_size: side in pixels of the images that the tower was trained on.
        fixed_size: the only side of windows that the tower takes, None for any multiple of the patch.
        num_prefix_tokens: tokens before the patches: the class token if there is one, then registers if any.
        has_class_token: whether the first token is a class token.
        same_tokens: whether every block has the tokens of the first.
        method_options: the model's own values of methods' options, by method (:meth:`Method.completed`).
    """

    patch_size: tuple[int, int]
    grid_size: tuple[int, int]
    dim: int
    image_size: int
    fixed_size: int | None = None
    num_prefix_tokens = 1
    has_class_token = True
    same_tokens = True
    method_options: Mapping[str, Mapping[str, Any]] = {}

    def __init__(self):
        super().__init__()
        self._cached: dict[tuple, Any] = {}

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks in order (for hooks that gather statistics)."""
        raise NotImplementedError

    def parts(self, grid: tuple[int, int]) -> list[BlockParts]:
        """The parts of every block, in order, for patches on such a grid."""
        raise NotImplementedError

    def tokens(self, images: Tensor, position_resize: str) -> Tensor:
        """What the first block reads, (B, P+N, D); see :func:`resize_positions` for the second argument."""
        raise NotImplementedError

    def head(self, patches: Tensor) -> Tensor:
        """Patch tokens after the last block, (B, N, D), to embeddings (B, N, E)."""
        raise NotImplementedError

    def embed_patches(self, tokens: Tensor) -> Tensor:
        """All tokens after the last block, (B, P+N, D), to embeddings of the patches, (B, N, E)."""
        return self.head(tokens[:, self.num_prefix_tokens :])

    def compute_mixed(self) -> None:
        """From now on compute the matrix products of unchanged blocks in bf16, and all else in fp32.

        Raises:
            UserError: the blocks are not OpenCLIP's plain ones.
        """
        raise UserError(
            "precision 'mixed' is for OpenCLIP's plain ViTs only, which this image tower is not; use fp32, bf16 or auto"
        )

    def run_block(self, index: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """One unchanged block, (B, P+N, D) to the same, for patches on such a grid."""
        return UNCHANGED([self.parts(grid)[index]], tokens)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of ``images`` (…, H, W)."""
        return images.shape[-2] // self.patch_size[0], images.shape[-1] // self.patch_size[1]

    def positions(self, embedding: Tensor, grid: tuple[int, int], how: str) -> Tensor:
        """:meth:`resized_positions`, once per grid."""
        key = (grid, how, embedding.device, embedding.dtype, _version(embedding))
        return self.cached_value(key, lambda: self.resized_positions(embedding.detach(), grid, how))

    def resized_positions(self, embedding: Tensor, grid: tuple[int, int], how: str) -> Tensor:
        """Positional embeddings for a grid; see :func:`resize_positions`. A tower may have a way of its own."""
        return resize_positions(embedding, self.grid_size, grid, how)

    def cached_value(self, key: tuple, compute: Callable[[], Any]) -> Any:
        """What ``compute`` returns, kept for the next call with this key.

        Threads that ask for a new key at once compute it each; a key may be dropped at any time.
        """
        cached = self._cached
        if key in cached:
            return cached[key]
        value = compute()
        # Whole images come in many sizes, of which all would fill the memory. A new dict each time, since other threads
        # may be reading the old one.
        if len(cached) < CACHED_GRIDS:
            self._cached = {**cached, key: value}
        else:
            self._cached = {key: value}
        return value

    def check(self, method: Method) -> None:
        """Raise a UserError where the tower lacks blocks or tokens that the method needs."""
        count = len(self.blocks)
        method.completed(self.method_options).required_blocks(count)
        if count < method.depth:
            raise UserError(
                f"{method.label} works on the last {method.depth} blocks, but this model has {count}; "
                "choose a deeper model or another method"
            )
        check_tokens(method, self.has_class_token, self.same_tokens)

    def forward(
        self,
        images: Tensor,
        methods: Sequence[Method],
        text: Tensor | Sequence[Tensor] | None = None,
        second: Mapping[SecondEncoderKey, Tensor] | None = None,
    ) -> list[Tensor]:
        """Dense features by several methods. Blocks that are the same for all of them run once.

        Args:
            images: (B, 3, H, W), normalised; of H and W what goes beyond the last full patch is not seen.
            methods: how the last blocks are computed.
            text: for methods that need "text": the words' features, (words, E), or a sequence of such, one for each
                method.
            second: for methods that need "second encoder": the features of the same images, (B, rows, columns, C), by
                the method's ``second_encoder_key``.

        Returns:
            For each method (B, rows, columns, E): an embedding per patch, H // patch × W // patch unless the method
            has its own grid; not normalised, in the weights' dtype.

        Raises:
            UserError: a method needs what is not given.
        """
        methods = [method.completed(self.method_options) for method in methods]
        # Before anything is computed, so that what is missing is said at once.
        method_inputs = []
        for method, words in zip(methods, _text_of_each(text, len(methods)), strict=True):
            method_inputs.append(_needed_inputs(method, words, images, second))
        grid = self.grid(images)
        blocks = self.parts(grid)
        features: dict[int, Tensor] = {}
        for resize, indices in self._by_position_resize(methods, grid).items():
            group = [methods[index] for index in indices]
            block_inputs = self._block_inputs(self.tokens(images, resize), group, grid)
            context = Context(grid, self.num_prefix_tokens, block_inputs, embed=self.head)
            blocks_of_pass = _sharing_last_block(blocks, block_inputs)
            for index in indices:
                method = methods[index]
                method_context = replace(context, **method_inputs[index])
                block_input = block_inputs[len(blocks) - method.depth]
                tokens = method(blocks_of_pass, block_input, method_context)
                method_grid = method.grid_size(method_context)
                check_returned_tokens(method, tokens, block_input, self.num_prefix_tokens, method_grid)
                features[index] = self.embed_patches(tokens).unflatten(1, method_grid)
        return [features[index] for index in range(len(methods))]

    def _by_position_resize(self, methods: Sequence[Method], grid: tuple[int, int]) -> dict[str, list[int]]:
        """How positional embeddings are resized → the methods, by their index, that read tokens with such."""
        indices: dict[str, list[int]] = {}
        for index, method in enumerate(methods):
            resize = method.position_resize
            # Where nothing is resized, all methods read the same tokens, and the trunk runs once.
            if grid == self.grid_size:
                resize = "scale_factor"
            indices.setdefault(resize, []).append(index)
        return indices

    def _block_inputs(self, tokens: Tensor, methods: Sequence[Method], grid: tuple[int, int]) -> dict[int, Tensor]:
        """The tokens before those blocks that one of the methods computes or asks for."""
        count = len(self.blocks)
        # The trunk ends where the last method begins.
        asked_for = {count - method.depth for method in methods}
        for method in methods:
            asked_for |= set(method.required_blocks(count))
        block_inputs = {}
        for index in range(max(asked_for) + 1):
            if index in asked_for:
                block_inputs[index] = tokens
            if index < max(asked_for):
                tokens = self.run_block(index, tokens, grid)
        return block_inputs


def _text_of_each(text: Tensor | Sequence[Tensor] | None, count: int) -> list[Tensor | None]:
    """The features of the words for each of ``count`` methods."""
    if text is None or isinstance(text, Tensor):
        return [text] * count
    return list(text)


def _sharing_last_block(blocks: Sequence[BlockParts], block_inputs: Mapping[int, Tensor]) -> list[BlockParts]:
    """The parts of all blocks; methods of a pass share what the last one computes of its input, such as q, k and v."""
    blocks = list(blocks)
    final = len(blocks) - 1
    if final in block_inputs:
        blocks[final] = CachedBlock.of(blocks[final], block_inputs[final])
    return blocks


def _needed_inputs(
    method: Method, text: Tensor | None, images: Tensor, second: Mapping[SecondEncoderKey, Tensor] | None
) -> dict[str, Tensor]:
    """What a method needs beside the tokens, by the names of the context's attributes (:data:`NEEDS`).

    Raises:
        UserError: this call does not give it.
    """
    available = {"text": text, "image": images, "second encoder": (second or {}).get(method.second_encoder_key)}
    absent = [need for need in method.needs if available[need] is None]
    if absent:
        raise UserError(f"{method.label} needs {' and '.join(absent)}, which this call does not give it")
    return {NEEDS[need]: available[need] for need in method.needs}


def check_tokens(method: Method, has_class_token: bool, same_tokens: bool) -> None:
    """Raise a UserError where a method needs tokens that an image tower lacks."""
    if method.needs_class_token and not has_class_token:
        raise UserError(f"{method.label} reads the class token, which this image tower has not; choose another method")
    if method.needs_same_tokens and not same_tokens:
        raise UserError(
            f"{method.label} mixes the tokens of several blocks, which differ in this image tower; choose another"
        )


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place, by load_state_dict for example. Inference tensors do not count it."""
    if tensor.is_inference():
        return 0
    return tensor._version


class TowerRegistry(dict[type[nn.Module], Callable[[nn.Module], DenseEncoder]]):
    """Image towers by the class of the module that OpenCLIP's model has as ``visual``, or a class that it inherits."""

    def register_module(self, visual: type[nn.Module]) -> Callable:
        """Register a :class:`DenseEncoder` (as a decorator) for this class of modules."""

        def register(encoder: Callable[[nn.Module], DenseEncoder]) -> Callable:
            self[visual] = encoder
            return encoder

        return register

    def build(self, visual: nn.Module) -> DenseEncoder:
        """The dense encoder of an image tower.

        Raises:
            UserError: there is none for it; names what does not fit.
        """
        # A subclass of a known tower is taken as that tower, which then checks its parts.
        for visual_class in type(visual).__mro__:
            if visual_class in self:
                return self[visual_class](visual)
        raise UserError(f"the image tower is a {type(visual).__name__}; {SUPPORTED}")


TOWERS = TowerRegistry()


def resize_positions(embedding: Tensor, trained_grid: tuple[int, int], grid: tuple[int, int], how: str) -> Tensor:
    """Resize the patch part of positional embeddings bicubically; those of tokens before the patches are kept.

    Args:
        embedding: (P + rows * columns of the trained grid, D), P from 0.
        trained_grid: the checkpoint's (rows, columns).
        grid: the wanted rows and columns.
        how: "scale_factor" passes (grid + 0.1) / trained_grid as scale to the interpolation, as published; the numbers
            differ slightly from those of "size", which GEM uses (antialiased), and of "size without antialias" (LPOSS).

    Returns:
        (P + rows * columns of the grid, D)
    """
    # By the published scale, interpolation to the same size would not be exact.
    if tuple(grid) == tuple(trained_grid):
        return embedding
    count = trained_grid[0] * trained_grid[1]
    prefix, patches = embedding.split([len(embedding) - count, count])
    # In fp32 also for half precision, in which the interpolation's weights would be rounded.
    patches = patches.reshape(1, *trained_grid, -1).permute(0, 3, 1, 2).float()
    if how.startswith("size"):
        patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False, antialias=how == "size")
    else:
        # The 0.1 guards against a size that is rounded down; it also shifts where the table is sampled, a little.
        scale = ((grid[0] + 0.1) / trained_grid[0], (grid[1] + 0.1) / trained_grid[1])
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
    patches = patches.permute(0, 2, 3, 1).flatten(0, 2)
    return cat([prefix, patches.to(embedding.dtype)])

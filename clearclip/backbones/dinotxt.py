"""dino.txt: DINOv3 with two more blocks over all its tokens, trained to match a text tower, as blocks of the tower."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from open_clip.transformer import TextTransformer
from timm.layers import SwiGLU
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from clearclip.backbones.checkpoints import load_weights, read_checkpoint
from clearclip.backbones.timm_tower import TimmEncoder, as_visual, block_parts
from clearclip.backbones.vit_of_weights import Heads, dinov3_vit, number_of_blocks, renamed, warn_of_untrained_scale
from clearclip.methods import BlockParts, Method
from clearclip.utils.errors import UserError

#: Parts of the text tower's names in the release → in OpenCLIP.
_TEXT_NAMES = {
    "blocks.": "transformer.resblocks.",
    ".attention_norm.": ".ln_1.",
    ".attention.qkv.": ".attn.in_proj_",
    ".attention.proj.": ".attn.out_proj.",
    ".ffn_norm.": ".ln_2.",
    ".feed_forward.fc1.": ".mlp.c_fc.",
    ".feed_forward.fc2.": ".mlp.c_proj.",
}


class DinoTxtHead(nn.Module):
    """Two blocks without positions, and a norm.

    Args:
        width, hidden, depth, heads: the sizes; ``hidden`` is that of the FFN, a SwiGLU.
    """

    def __init__(self, width: int, hidden: int, depth: int, heads: int):
        super().__init__()
        # timm multiplies the ratio by the width and rounds down.
        ratio = (hidden + 0.5) / width
        norm = partial(nn.LayerNorm, eps=1e-5)
        options = dict(qkv_bias=False, init_values=1e-5, act_layer=nn.SiLU, norm_layer=norm, mlp_layer=SwiGLU)
        self.blocks = nn.ModuleList(Block(width, heads, ratio, **options) for _ in range(depth))
        self.ln_final = norm(width)


class DinoTxtEncoder(TimmEncoder):
    """Dense features of dino.txt. Its blocks are DINOv3's, then the head's: the last block is the head's last.

    Args:
        vit: DINOv3.
        text_head: the head that was trained with text.
    """

    same_tokens = False  # DINOv3's final norm is between its last block and the head's first

    def __init__(self, vit: nn.Module, text_head: DinoTxtHead):
        super().__init__(as_visual(vit))
        self.text_head = text_head
        self.dim = vit.embed_dim

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [*self.visual.trunk.blocks, *self.text_head.blocks]

    def parts(self, grid: tuple[int, int]) -> list[BlockParts]:
        return super().parts(grid) + [block_parts(block, None) for block in self.text_head.blocks]

    def run_block(self, index: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        trunk = self.visual.trunk
        if index >= len(trunk.blocks):
            return self.text_head.blocks[index - len(trunk.blocks)](tokens)
        tokens = super().run_block(index, tokens, grid)
        is_last_of_backbone = index == len(trunk.blocks) - 1
        if is_last_of_backbone:
            tokens = trunk.norm(tokens)
        return tokens

    def head(self, patches: Tensor) -> Tensor:
        return self.text_head.ln_final(patches)


class DinoTxtBackboneEncoder(DinoTxtEncoder):
    """The same with DINOv3's last block as the last one, and the head unchanged behind it.

    This is another thing than changing the last block before the text: class and register tokens change as well, and
    the head mixes all tokens again.
    """

    same_tokens = True

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return self.visual.trunk.blocks

    def parts(self, grid: tuple[int, int]) -> list[BlockParts]:
        return TimmEncoder.parts(self, grid)

    def run_block(self, index: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return TimmEncoder.run_block(self, index, tokens, grid)

    def embed_patches(self, tokens: Tensor) -> Tensor:
        # All tokens, since the head's blocks mix patches with class and register tokens.
        tokens = self.visual.trunk.norm(tokens)
        for block in self.text_head.blocks:
            tokens = block(tokens)
        return super().embed_patches(tokens)

    def check(self, method: Method) -> None:
        super().check(method)
        if "text" in method.needs:
            raise UserError(f"{method.label} compares patches with words before the head; use dinotxt-l16")


class DinoTxtText(nn.Module):
    """The text tower: OpenCLIP's, under the name that OpenCLIP gives it."""

    def __init__(self, text: TextTransformer):
        super().__init__()
        self.text = text

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, D) of (B, 77) int64 tokens."""
        return self.text(tokens)


def load_dinotxt(files: dict[str, Path], label: str, at_backbone: bool) -> tuple[DinoTxtEncoder, DinoTxtText]:
    """Both towers from the two published files.

    Args:
        files: of the backbone, and of head and text.
        label: the model's, for errors.
        at_backbone: whether methods change the backbone's last block in place of the head's.

    Raises:
        UserError: a file that cannot be read, or weights that do not fit.
    """
    heads = Heads.read(files.get("config"))
    vit = dinov3_vit(read_checkpoint([files["image"]]), heads, label)
    state = read_checkpoint([files["text"]])
    if "visual_model.head.ln_final.weight" not in state:
        raise UserError(f"{files['text']} has no head of dino.txt, without which DINOv3 knows no words; get its file")
    head = _head(_weights_under(state, "visual_model.head."), heads, label)
    text = _text_tower(_weights_under(state, "text_model."), heads, vit.embed_dim, label)
    if at_backbone:
        return DinoTxtBackboneEncoder(vit, head), DinoTxtText(text)
    return DinoTxtEncoder(vit, head), DinoTxtText(text)


def _weights_under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _head(state: dict[str, Tensor], heads: Heads, label: str) -> DinoTxtHead:
    """The image side of the head."""
    hidden, width = state["blocks.0.mlp.w1.weight"].shape
    head = DinoTxtHead(width, hidden, number_of_blocks(state, "blocks."), heads.of("image", width))
    # The release's SwiGLU is fc2(silu(fc1_g(x)) * fc1_x(x)) in timm's names.
    state = renamed(state, {".w1.": ".fc1_g.", ".w2.": ".fc1_x.", ".w3.": ".fc2."})
    load_weights(head, state, label)
    warn_of_untrained_scale(head.blocks[-1], label)
    return head


def _text_tower(state: dict[str, Tensor], heads: Heads, dim: int, label: str) -> TextTransformer:
    """The text tower with the half of its projection that belongs to patches: the first is the class token's."""
    projection = state.pop("head.linear_projection.weight")
    state = {name.removeprefix("backbone."): value for name, value in state.items()}
    state = renamed(state, _TEXT_NAMES)
    # Its attention has no biases of q, k and v; OpenCLIP's always has.
    biases = {}
    for name, value in state.items():
        if name.endswith("in_proj_weight"):
            biases[name.replace("weight", "bias")] = torch.zeros(len(value))
    state |= biases
    state["text_projection"] = projection[dim:].T
    vocabulary, width = state["token_embedding.weight"].shape
    text = TextTransformer(
        context_length=len(state["positional_embedding"]),
        vocab_size=vocabulary,
        width=width,
        heads=heads.of("text", width),
        layers=number_of_blocks(state, "transformer.resblocks."),
        mlp_ratio=(state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0] + 0.5) / width,
        output_dim=len(projection) - dim,
    )
    load_weights(text, state, label)
    return text

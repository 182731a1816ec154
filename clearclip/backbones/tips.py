"""TIPSv2 (CVPR 2026): a DINOv2-like image tower whose patches share a space with the text without any projection."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import LayerNorm, Transformer
from torch import Tensor, nn

from clearclip.backbones.checkpoints import load_weights, read_checkpoint, reason
from clearclip.backbones.timm_tower import TimmEncoder, as_visual
from clearclip.backbones.vit_of_weights import Heads, from_dinov2_names, number_of_blocks, plain_vit
from clearclip.utils.errors import UserError

CONTEXT_LENGTH = 64


class TipsEncoder(TimmEncoder):
    """Dense features of TIPSv2's image tower."""

    def resized_positions(self, embedding: Tensor, grid: tuple[int, int], how: str) -> Tensor:
        """Bilinear and antialiased, as the release resizes them; of class and register token there are none."""
        if grid == self.grid_size:
            return embedding
        table = embedding.T.unflatten(1, self.grid_size)[None].float()
        resized = F.interpolate(table, size=grid, mode="bilinear", align_corners=False, antialias=True)
        return resized[0].flatten(1).T.to(embedding.dtype)


class TipsText(nn.Module):
    """The text tower: every token sees every other one, and the mean of all is the embedding.

    Args:
        vocabulary, width, layers, heads, hidden: its sizes; ``hidden`` is that of the FFN.
    """

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, hidden: int):
        super().__init__()
        self.width, self.heads = width, heads
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.transformer = Transformer(width, layers, heads, (hidden + 0.5) / width, act_layer=nn.ReLU)
        self.ln_final = LayerNorm(width)

    def encode_text(self, tokens: dict[str, Tensor]) -> Tensor:
        """Embeddings (B, D) of ``input_ids`` and ``attention_mask``, both (B, T) int64."""
        ids, attended = tokens["input_ids"], tokens["attention_mask"].bool()
        embedded = self.token_embedding(ids)
        positions = sinusoids(ids.shape[1], self.width).to(embedded)
        # Added to the scores: padding is seen by no token. OpenCLIP's blocks take such a mask for each head.
        no_mask = torch.zeros(attended.shape, device=ids.device, dtype=embedded.dtype)
        mask = no_mask.masked_fill(~attended, -torch.inf)[:, None, :]
        mask = mask.expand(-1, ids.shape[1], -1).repeat_interleave(self.heads, dim=0)
        outputs = self.ln_final(self.transformer(embedded * math.sqrt(self.width) + positions, attn_mask=mask))
        weights = attended[:, :, None].to(outputs)
        return (outputs * weights).sum(dim=1) / (weights.sum(dim=1) + 1e-8)


def sinusoids(length: int, width: int) -> Tensor:
    """Positions of a text, (length, width): all sines, then all cosines."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class SentencePieceTokenizer:
    """Lower-cased text to tokens without begin and end, cut and padded with 0 to 64.

    Args:
        path: the ``tokenizer.model``.

    Raises:
        UserError: the package sentencepiece is missing, or the file is damaged.
    """

    def __init__(self, path: Path):
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise UserError("TIPSv2's tokenizer needs the package sentencepiece: pip install sentencepiece") from error
        try:
            self.processor = SentencePieceProcessor(model_file=str(path))
        except Exception as error:  # whatever a damaged file raises
            raise UserError(f"{path} is no tokenizer of SentencePiece ({reason(error)}); download it again") from error

    def __call__(self, texts: list[str]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` of the texts, both (len(texts), 64) int64."""
        ids = torch.zeros(len(texts), CONTEXT_LENGTH, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            tokens = self.processor.encode(text.lower())[:CONTEXT_LENGTH]
            row[: len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def load_tips(files: dict[str, Path], label: str) -> tuple[TipsEncoder, TipsText]:
    """Both towers, from the hub's safetensors or the pair of .npz files.

    Raises:
        UserError: a file that cannot be read, or weights that do not fit.
    """
    heads = Heads.read(files.get("config"))
    vit = plain_vit(from_dinov2_names(_read_tower(files["image"], "vision_encoder.")), heads, label)
    state = _read_tower(files["text"], "text_encoder.")
    state.pop("temperature", None)  # the .npz has it
    if "token_embedding.weight" not in state:
        raise UserError(f"{files['text']} has no text tower of TIPSv2; give Google's file or its .npz")
    vocabulary, width = state["token_embedding.weight"].shape
    hidden = state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    layers = number_of_blocks(state, "transformer.resblocks.")
    text = TipsText(vocabulary, width, layers, heads.of("text", width), hidden)
    load_weights(text, state, label)
    return TipsEncoder(as_visual(vit)), text


def _read_tower(path: Path, prefix: str) -> dict[str, Tensor]:
    """One tower's weights, without the prefix that they have where both towers are in one file."""
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
        except Exception as error:  # whatever a damaged file raises
            raise UserError(f"{path} is damaged, or no .npz of arrays ({reason(error)}); download it again") from error
    state = read_checkpoint([path])
    if any(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return state

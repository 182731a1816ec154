"""Prompts at the length that counts: in most text towers the padding behind a prompt changes nothing.

A prompt takes 10 tokens or so of a context of 77, so most of a text tower's time would be spent on padding.
"""

from __future__ import annotations

import copy

import open_clip
import torch
from open_clip.hf_model import ClsLastHiddenStatePooler, ClsPooler, HFTextEncoder, MeanPooler
from open_clip.transformer import TextTransformer
from torch import Tensor, nn


class CuttingEncoder:
    """The unmodified ``encode_text`` of a model, for prompts that are cut where that is exact.

    Nothing of the model is changed, so that several threads may encode at once: where a tower has positional
    embeddings and a causal mask of its full context, a shallow copy of it gets their beginning.

    Args:
        model: has ``encode_text(tokens) -> (B, E)``.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        # OpenCLIP has the text tower as a module of its own, or, in its oldest class, spread over the model.
        tower = getattr(model, "text", model)
        if type(tower) is open_clip.CLIP:
            self.pool_type = tower.text_pool_type
            self.end_token = getattr(tower, "text_eos_id", None)
        else:
            self.pool_type = getattr(tower, "pool_type", None)
            self.end_token = getattr(tower, "eos_id", None)
        # A method in the instance's own dict was put in the place of the class's.
        has_own_method = "encode_text" in vars(model)
        self.is_causal = not has_own_method and _is_causal(tower)
        masks_padding = type(getattr(tower, "pooler", None)) in (ClsLastHiddenStatePooler, ClsPooler, MeanPooler)
        self.padding: int | None = None
        if type(tower) is HFTextEncoder and masks_padding and not has_own_method:
            self.padding = tower.config.pad_token_id

    def lengths(self, tokens: dict[str, Tensor]) -> Tensor:
        """How many tokens of each prompt (B, T), from its start, change its embedding: (B,) int64."""
        ids = tokens["input_ids"]
        # The token that is read is the one of the highest id, which is the end token.
        if self.is_causal and self.pool_type == "argmax":
            return ids.argmax(dim=1) + 1
        if self.is_causal and self.pool_type == "eos":
            return (ids == self.end_token).int().argmax(dim=1) + 1
        if self.padding is not None:
            attended = ids != self.padding
        else:
            attended = tokens.get("attention_mask", torch.ones_like(ids))
        context = ids.shape[1]
        # The last position that is attended to, counted from 1. Where there is none, nothing is cut.
        lengths = (attended * torch.arange(1, context + 1, device=ids.device)).amax(dim=1)
        return lengths.masked_fill(lengths == 0, context)

    def encode(self, tokens: dict[str, Tensor], length: int) -> Tensor:
        """Embeddings (B, E) of prompts (B, T), cut to ``length`` tokens."""
        cut_tokens = {name: value[:, :length] for name, value in tokens.items()}
        model = self.model
        if self.is_causal:
            model = _shortened(model, length)
        # OpenCLIP's models take the ids alone; those with an attention mask take all by name.
        if list(cut_tokens) == ["input_ids"]:
            return model.encode_text(cut_tokens["input_ids"])
        return model.encode_text(cut_tokens)


def _is_causal(tower: nn.Module) -> bool:
    """Whether it is a tower of OpenCLIP's in which no token sees one behind it.

    What follows the token that is read is never seen then. CoCa's class token is appended behind the padding, and sees
    all of it.
    """
    if type(tower) not in (open_clip.CLIP, TextTransformer) or getattr(tower, "cls_emb", None) is not None:
        return False
    mask = tower.attn_mask
    return mask is not None and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))


def _shortened(model: nn.Module, length: int) -> nn.Module:
    """A model that shares all of ``model`` but for the beginnings of positional embeddings and causal mask."""
    shorter = copy.copy(model)
    if hasattr(model, "text"):
        shorter._modules = {**model._modules, "text": _shortened(model.text, length)}
        return shorter
    # As plain entries, since assigning an attribute would register it in dicts that both models have.
    positions, mask = model.positional_embedding, model.attn_mask
    shorter._parameters = {**model._parameters, "positional_embedding": positions[:length]}
    shorter._buffers = {**model._buffers, "attn_mask": mask[:length, :length]}
    return shorter

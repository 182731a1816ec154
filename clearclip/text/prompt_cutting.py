"""Prompts at the length that counts: in most towers, the padding behind it changes nothing."""

from __future__ import annotations

import open_clip
import torch
from open_clip.hf_model import ClsLastHiddenStatePooler, ClsPooler, HFTextEncoder, MeanPooler
from open_clip.transformer import TextTransformer
from torch import Tensor, nn


class CuttingEncoder(nn.Module):
    """The unmodified ``encode_text`` of ``model``, for prompts that are cut where that is exact."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        tower, self.at = (model.text, "model.text") if hasattr(model, "text") else (model, "model")
        mask, own = getattr(tower, "attn_mask", None), "text_" if type(tower) is open_clip.CLIP else ""
        self.pool, self.eos = getattr(tower, f"{own}pool_type", None), getattr(tower, f"{own}eos_id", None)
        # What follows the token that is read is never seen. CoCa reads one behind the padding.
        usual = "encode_text" not in vars(model)  # nobody has put another one in its place
        plain = usual and type(tower) in (open_clip.CLIP, TextTransformer) and getattr(tower, "cls_emb", None) is None
        causal = plain and mask is not None and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))
        self.positions, self.mask = (tower.positional_embedding.detach(), mask) if causal else (None, None)
        masking = type(getattr(tower, "pooler", None)) in (ClsLastHiddenStatePooler, ClsPooler, MeanPooler)
        self.pad = tower.config.pad_token_id if usual and type(tower) is HFTextEncoder and masking else None

    def lengths(self, tokens: dict[str, Tensor]) -> Tensor:
        """How many tokens of each prompt (B, T), from its start, change its embedding: (B,) int64."""
        ids = tokens["input_ids"]
        if self.positions is not None and self.pool in ("argmax", "eos"):
            return (ids if self.pool == "argmax" else (ids == self.eos).int()).argmax(dim=1) + 1
        seen = tokens.get("attention_mask", torch.ones_like(ids)) if self.pad is None else ids != self.pad
        last = (seen * torch.arange(1, ids.shape[1] + 1, device=ids.device)).amax(dim=1)
        return last.masked_fill(last == 0, ids.shape[1])

    def encode(self, tokens: dict[str, Tensor], length: int) -> Tensor:
        """Embeddings (B, E) of prompts (B, T), cut to ``length`` tokens. Not for several threads at once."""
        cut, short = {name: value[:, :length] for name, value in tokens.items()}, {}
        if self.positions is not None:
            short[f"{self.at}.positional_embedding"] = self.positions[:length]
            short[f"{self.at}.attn_mask"] = self.mask[:length, :length]
        return torch.func.functional_call(self, short, (cut if len(cut) > 1 else cut["input_ids"],))

    def forward(self, tokens: Tensor | dict[str, Tensor]) -> Tensor:
        return self.model.encode_text(tokens)

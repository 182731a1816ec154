"""Prompts are cut where that is exact, and nothing of the tower is changed for it."""

from __future__ import annotations

import functools

import open_clip
import pytest
import reference
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import SimpleTokenizer
from tiny import named_weights
from transformers import BertConfig, BertModel

from clearclip.text import ClassWords, TextEncoder
from clearclip.text.encoder import TEMPLATES

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


TOKENIZER = SimpleTokenizer(context_length=24)


class WithMask(torch.nn.Module):
    """A tower that takes tokens and a mask, as BLIP's does."""

    def __init__(self):
        super().__init__()
        self.bert = BertModel(_bert())

    def encode_text(self, tokens):
        return self.bert(**tokens).last_hidden_state[:, 0]


def _bert(**options):
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=49408)
    return BertConfig(**sizes, max_position_embeddings=24, **options)


def _clip(kind="CLIP", **text):
    return getattr(open_clip, kind)(embed_dim=32, vision_cfg=VISION, text_cfg={**TEXT, **text})


def _hugging_face(pooler="mean_pooler", **options):
    model = _clip("CustomTextCLIP")
    model.text = HFTextEncoder("", 32, config=_bert(**options), pooler_type=pooler, proj_type="linear")
    return model


#: Models, and whether their prompts can be cut.
TOWERS = {
    "end": (_clip, True),
    "end by its number": (functools.partial(_clip, pool_type="eos", eos_id=49407), True),
    "own tower": (functools.partial(_clip, "CustomTextCLIP"), True),
    "own tower, by number": (functools.partial(_clip, "CustomTextCLIP", pool_type="eos", eos_id=49407), True),
    "other blocks": (functools.partial(_clip, qk_norm=True, scale_attn=True, scale_heads=True), True),
    "mean with mask": (_hugging_face, True),
    "class token with mask": (functools.partial(_hugging_face, "cls_last_hidden_state_pooler"), True),
    "mask beside tokens": (WithMask, True),
    "sees all": (functools.partial(_clip, no_causal_mask=True), False),
    "own tower sees all": (functools.partial(_clip, "CustomTextCLIP", no_causal_mask=True), False),
    "last token": (functools.partial(_clip, pool_type="last"), False),
    "appended class token": (functools.partial(_clip, "CustomTextCLIP", embed_cls=True), False),
    "other padding": (functools.partial(_hugging_face, pad_token_id=1), False),
}


@pytest.mark.parametrize("tower", TOWERS)
def test_prompts_are_cut_where_that_is_exact(tower, monkeypatch):
    make, cut = TOWERS[tower]
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    model.load_state_dict(named_weights(model.state_dict()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tokenizer, widths, words = TOKENIZER, set(), ["traffic light", "word " * 30]
    if tower == "mask beside tokens":
        tokenizer = lambda texts: {"input_ids": (ids := TOKENIZER(texts)), "attention_mask": (ids != 0).long()}  # noqa: E731
    wanted = torch.from_numpy(reference.text_features(model, tokenizer, words, TEMPLATES))
    encode = type(model).encode_text
    width = lambda tokens: (tokens["input_ids"] if isinstance(tokens, dict) else tokens).shape[1]  # noqa: E731
    spy = lambda self, tokens: (widths.add(width(tokens)), encode(self, tokens))[1]  # noqa: E731
    monkeypatch.setattr(type(model), "encode_text", spy)
    found = TextEncoder(model, tokenizer, dim=32, cached=False).encode(ClassWords.parse(words)).features
    torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=0)
    assert max(widths) == 24
    assert (min(widths) < 9) == cut
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

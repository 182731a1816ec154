"""Small models as files, and what is compared of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from clearclip import ClearCLIP

NOISE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def load(*names, **options) -> ClearCLIP:
    return ClearCLIP.from_pretrained(*names, device="cpu", cached=False, **options)


@torch.inference_mode()
def features(model: ClearCLIP) -> Tensor:
    return model.image_encoder(NOISE, [model.method])[0]


def assert_same(model: ClearCLIP, folder: Path) -> None:
    torch.testing.assert_close(features(model), features(load(f"local-dir:{folder}")))


def shard(state: dict[str, Tensor], folder: Path, name: str = "model.safetensors") -> None:
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({one: state[one].contiguous() for one in part}, folder / file)
    listed = {one: file for file, part in parts.items() for one in part}
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of twelve words."""
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<pad>", "<s>", "</s>", "<unk>", "a", "photo", "of", "sky", "tree", "the", "cat", "dog"]
    model = tokenizers.models.WordLevel({word: index for index, word in enumerate(words)}, "<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<s> $A </s>", special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    described = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))

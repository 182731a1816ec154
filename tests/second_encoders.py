"""Tiny second encoders with the weights that the recordings of ProxyCLIP and LPOSS were made with."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from tiny import named_weights
from torch import Tensor

from clearclip.backbones.dino_tower import SECOND_ENCODERS

#: Second encoders of the recordings: their names here, and native side of the tiny ones.
GUIDES = {
    "dino8": ("dino-vitb8", 64),
    "dino16": ("dino-vitb16", 64),
    "dinov2": ("dinov2-vitb14", 70),
    "dinov2reg": ("dinov2-vitb14-reg", 70),
}
RENAMED = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "norm": "ln_post",
    "cls_token": "class_embedding",
    "pos_embed": "positional_embedding",
    "register_tokens": "register_embedding",
    "ls1": "ln_ls1",
    "ls2": "ln_ls2",
    "gamma": "weight",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("guides")


@pytest.fixture
def guide(monkeypatch, files):
    """Options of a method for one of :data:`GUIDES`: timm builds tiny ones, and their weights are in a file."""
    create = timm.create_model

    def guide(name: str) -> dict[str, str]:
        own, side = GUIDES[name]
        small = dict(embed_dim=96, depth=4, num_heads=3, img_size=side)
        monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **small, **options))
        path = files / f"{name}.pth"
        if not path.exists():
            torch.save(drawn_weights(timm.create_model(SECOND_ENCODERS[own])), path)
        return {"guide": own, "guide_weights": str(path)}

    return guide


def drawn_weights(vit: torch.nn.Module) -> dict[str, Tensor]:
    """Weights that follow from names, with the names and shapes of the releases' files, which timm converts."""
    state = vit.state_dict()
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.zeros(1, 1 + state["pos_embed"].shape[1], 96)
    drawn = {}
    for key, value in state.items():
        name = ".".join(["vfm", *(RENAMED.get(part, part) for part in key.split("."))])
        drawn[key] = named_weights({name: value})[name]
    return drawn | ({"mask_token": torch.zeros(1, 96)} if vit.patch_embed.patch_size[0] == 14 else {})

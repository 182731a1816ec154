"""The tiny models from which the releases of later methods were recorded, and what their tests have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import reference
import torch
from tiny import TINY, named_weights
from torch import Tensor

from clearclip import ClearCLIP
from clearclip.methods import Method
from clearclip.text import ClassWords, TextFeatures

HALF_DEPTH = {"pre": 5, "post": 2, "summed": (2, 3, 4, 5), "rho": 0.3}  # SC-CLIP's of the recordings with 8 blocks

#: Pixels of windows: square, wide, one row of patches, 4 patches, a single one.
WINDOW_SIZES = [(64, 64), (48, 80), (16, 96), (32, 32), (16, 16)]
#: Square, 4 × 13 patches, one row, one column, a single patch.
LONG_WINDOW_SIZES = [(64, 64), (64, 208), (16, 96), (80, 16), (16, 16)]


def recordings(name: str) -> np.lib.npyio.NpzFile:
    """Outputs recorded from a release, by keys like ``METHOD|setting|HxW|what``."""
    return np.load(Path(__file__).parent / "release" / f"{name}.npz")


def parse_key(key: str) -> tuple[list[str], tuple[int, int], str]:
    """A recording's setting in words, the size of its window, and what was recorded."""
    setting, size, what = key.split("|")[-3:]
    height, width = map(int, size.split("x"))
    return setting.split("-"), (height, width), what


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ClearCLIP]:
    """The tiny model with so many blocks, and options."""
    folders = {}

    def load(layers: int, **options) -> ClearCLIP:
        if layers not in folders:
            folder = folders[layers] = tmp_path_factory.mktemp(f"blocks{layers}")
            config = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "layers": layers}}
            (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
            state = named_weights(open_clip.model.CLIP(**config).state_dict())
            torch.save(state, folder / "open_clip_pytorch_model.bin")
        return ClearCLIP.from_pretrained(f"local-dir:{folders[layers]}", device="cpu", **options)

    return load


@pytest.fixture(scope="module")
def models(load) -> dict[int, ClearCLIP]:
    return {layers: load(layers) for layers in (8, 12)}


@pytest.fixture(scope="module")
def tower(models) -> reference.Tower:
    state = {f"visual.{name}": value for name, value in models[12].image_encoder.visual.state_dict().items()}
    return reference.Tower(state, heads=4, patch=16, quick_gelu=True)


@torch.inference_mode()
def features(model: ClearCLIP, images: Tensor, method: Method) -> np.ndarray:
    return model.image_encoder(images, [method])[0].numpy()


@torch.inference_mode()
def last_inputs(model: ClearCLIP, images: Tensor) -> list[Tensor]:
    """The tokens before each block, (B, 1+N, D)."""
    encoder = model.image_encoder
    inputs = [encoder.tokens(images, "scale_factor")]
    for index in range(len(encoder.blocks) - 1):
        inputs.append(encoder.run_block(index, inputs[-1], encoder.grid(images)))
    return inputs


def assert_close(got: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def random_text(words: int) -> Tensor:
    """Text features that all recordings share, (words, 64)."""
    return torch.nn.functional.normalize(torch.randn(words, 64, generator=torch.Generator().manual_seed(0)), dim=-1)


def as_classes(text: Tensor, classes: list[int]) -> TextFeatures:
    """Words of these classes with these features."""
    names = []
    for label in range(max(classes) + 1):
        names.append(" | ".join(f"word {word}" for word, own in enumerate(classes) if own == label))
    return TextFeatures(ClassWords.parse(names), text, torch.tensor(classes))

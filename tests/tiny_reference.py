"""The tiny CLIP of the tests written out with loops (:mod:`reference`): its image tower, words and images."""

from __future__ import annotations

import open_clip
import pytest
import reference
import torch

CLASSES = ["sky | heaven", "tree", "a horse|pony | foal", "grass"]
WORDS = ["sky", "heaven", "tree", "a horse", "pony", "foal", "grass"]
WORD_TO_CLASS = [0, 0, 1, 2, 2, 2, 3]
PATCH = 8


@pytest.fixture(scope="session")
def tiny_tower(tiny_folder):
    state = torch.load(tiny_folder / "open_clip_pytorch_model.bin", weights_only=True)
    return reference.Tower(state, heads=4, patch=PATCH, quick_gelu=True)


@pytest.fixture(scope="session")
def tiny_text(tiny_name):
    """Features of :data:`WORDS`, (words, E)."""
    model = open_clip.create_model(tiny_name).eval()
    return reference.text_features(
        model, open_clip.get_tokenizer(tiny_name), WORDS, open_clip.OPENAI_IMAGENET_TEMPLATES
    )


def image_of(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A smooth random normalised image, so that neighbouring patches differ but are no noise."""
    coarse = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]

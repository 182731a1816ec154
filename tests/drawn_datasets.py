"""Small datasets of random images and masks of blocks."""

import numpy as np
from layouts import random_image
from PIL import Image


def save_pairs(root, folders, suffixes, masks):
    """Masks by name, and a random image for each; ``folders`` and ``suffixes`` of images and masks."""
    rng = np.random.default_rng(1)
    for name, mask in masks.items():
        for folder, suffix, array in zip(folders, suffixes, (random_image(rng, *mask.shape), mask), strict=True):
            path = root / folder / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def blocks(rng, shape, ids, dtype=np.uint8):
    """A mask of blocks of 5 pixels: any of ``ids``."""
    height, width = shape
    small = rng.choice(np.asarray(ids, dtype), (-(-height // 5), -(-width // 5)))
    return small.repeat(5, 0).repeat(5, 1)[:height, :width]

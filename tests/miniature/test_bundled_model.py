"""The bundled model and its benchmark: whole, small, with colours that differ, and weights that load anywhere."""

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scenes import VALIDATION_SEEDS, draw_scene

from clearclip.miniature import BENCHMARK, CLASSES, DIRECTORY, PALETTE


def test_benchmark_is_whole_and_small():
    images, masks = (sorted((BENCHMARK / folder / "val").iterdir()) for folder in ("images", "annotations"))
    assert [path.name for path in images] == [path.name for path in masks] == [f"{k:04d}.png" for k in range(200)]
    assert sum(path.stat().st_size for path in (*images, *masks)) <= 6_000_000
    seen = set()
    for image, mask in zip(images, masks, strict=True):
        assert Image.open(image).size == Image.open(mask).size == (128, 128)
        assert Image.open(image).mode == "RGB"
        seen |= set(np.unique(np.asarray(Image.open(mask))).tolist())
    assert seen == set(range(len(CLASSES)))


# Linear RGB as seen without colour-vision deficiency, with protanopia and with deuteranopia (Machado et al., 2009).
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
}


@pytest.mark.parametrize("vision", VISION)
def test_palette_tells_the_classes_apart(vision):
    assert len(PALETTE) == len(CLASSES)
    rgb = np.array(PALETTE) / 255
    rgb = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.array(VISION[vision]).T
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.clip(rgb, 0, 1) @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert distance[np.triu_indices(len(CLASSES), 1)].min() > 15


def test_bundled_model_loads_and_knows_what_a_scene_shows():
    assert (DIRECTORY / "open_clip_model.safetensors").stat().st_size <= 12_000_000
    name = f"local-dir:{DIRECTORY}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model = model.eval()
    assert len(model.visual.transformer.resblocks) >= 6
    assert next(model.parameters()).dtype == torch.float32
    scenes = [draw_scene(seed) for seed in VALIDATION_SEEDS[:32]]
    images = torch.stack([preprocess(Image.fromarray(scene.image)) for scene in scenes])
    tokens = open_clip.get_tokenizer(name)([f"a photo of a {word}." for word in CLASSES])
    with torch.inference_mode():
        similarity = F.normalize(model.encode_image(images), dim=-1) @ F.normalize(model.encode_text(tokens), dim=-1).T
    shown = torch.tensor([[bool((scene.labels == c).mean() > 0.05) for c in range(len(CLASSES))] for scene in scenes])
    hidden = torch.tensor([[not (scene.labels == c).any() for c in range(len(CLASSES))] for scene in scenes])
    # Probability that a visible class is closer to the image than an absent one; 0.5 is chance.
    pairs = (similarity[:, :, None] > similarity[:, None, :])[shown[:, :, None] & hidden[:, None, :]]
    assert pairs.float().mean() > 0.9

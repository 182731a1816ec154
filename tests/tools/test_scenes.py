"""The miniature's scenes come out of the generator."""

import numpy as np
import pytest
from PIL import Image
from scenes import BENCHMARK_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS, draw_scene

from clearclip.miniature import BENCHMARK


def test_uses_of_the_scenes_never_share_a_seed():
    seeds = (set(BENCHMARK_SEEDS), set(VALIDATION_SEEDS), set(TRAINING_SEEDS[:100_000]))
    assert sum(map(len, seeds)) == len(set.union(*seeds))
    assert max(TRAINING_SEEDS) < min(min(BENCHMARK_SEEDS), min(VALIDATION_SEEDS))


@pytest.mark.parametrize("number", [0, 57, 121, 199])
def test_bundled_scene_comes_out_of_the_generator(number):
    scene = draw_scene(BENCHMARK_SEEDS[number])
    image = np.asarray(Image.open(BENCHMARK / "images" / "val" / f"{number:04d}.png"))
    mask = np.asarray(Image.open(BENCHMARK / "annotations" / "val" / f"{number:04d}.png"))
    np.testing.assert_array_equal(image, scene.image)
    np.testing.assert_array_equal(mask, scene.labels)


def test_scene_has_the_size_asked_for_and_depends_on_its_seed():
    scene = draw_scene(5, size=(96, 160))
    assert scene.image.shape == (96, 160, 3)
    assert scene.image.dtype == np.uint8
    assert scene.labels.shape == (96, 160)
    assert not np.array_equal(draw_scene(5).image, draw_scene(6).image)
    with pytest.raises(ValueError, match="16 x 16"):
        draw_scene(5, size=(128, 8))

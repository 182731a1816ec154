"""The miniature: its scenes come out of the generator, its captions tell the truth, its weights load anywhere."""

import re

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from captions import visible_names, write_caption
from conftest import load_tool
from PIL import Image
from safetensors.torch import load_file
from scenes import BENCHMARK_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS, draw_scene

from clearclip.miniature import BENCHMARK, CLASSES, DIRECTORY, PALETTE
from clearclip.utils.errors import UserError

# Every word by which a caption may name a class, written down apart from the module under test.
NAMED_BY = {
    "sky": r"sky|heavens",
    "cloud": r"clouds?",
    "sun": r"sun|sunshine",
    "balloon": r"balloons?",
    "mountain": r"mountains?|rocks",
    "snow": r"snow",
    "grass": r"grass|meadow|lawn",
    "water": r"water|lake|sea",
    "sand": r"sand|beach|dunes",
    "road": r"road|street|asphalt",
    "house": r"houses?|cottage",
    "tree": r"trees?",
    "boat": r"boats?|ship",
    "car": r"cars?|automobile",
}


@pytest.fixture(scope="module")
def training():
    return load_tool("train_miniature")


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


def test_scene_has_the_size_asked_for_and_depends_on_its_seed():
    scene = draw_scene(5, size=(96, 160))
    assert scene.image.shape == (96, 160, 3)
    assert scene.image.dtype == np.uint8
    assert scene.labels.shape == (96, 160)
    assert not np.array_equal(draw_scene(5).image, draw_scene(6).image)
    with pytest.raises(ValueError, match="16 x 16"):
        draw_scene(5, size=(128, 8))


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


def test_captions_name_nothing_but_what_is_visible():
    rng = np.random.default_rng(0)
    named = set()
    for seed in range(40):
        scene = draw_scene(seed)
        shares = {name: (scene.labels == label).mean() for label, name in enumerate(CLASSES)}
        visible = {name for name, share in shares.items() if share >= 0.03}
        names = visible_names(np.array(list(shares.values())))
        assert set(names) == visible
        for _ in range(20):
            caption = write_caption(rng, names, scene.colours)
            found = {name for name, words in NAMED_BY.items() if re.search(rf"\b({words})\b", caption)}
            assert found, caption
            assert found <= visible, caption
            for colour, word in re.findall(r"\b(red|blue|purple|orange|green|pink) (?:hot air )?(\w+)", caption):
                assert colour in {scene.colours.get(name) for name in found if re.fullmatch(NAMED_BY[name], word)}, (
                    caption
                )
            named |= found
    assert named == set(CLASSES)


def test_captions_use_every_imagenet_template():
    rng = np.random.default_rng(0)
    captions = {write_caption(rng, ["road"], {}) for _ in range(20_000)}
    assert {template("road") for template in open_clip.OPENAI_IMAGENET_TEMPLATES} <= captions


def test_shares_belong_to_the_crop_that_the_model_sees(training):
    labels = np.stack([draw_scene(seed).labels for seed in range(8)])
    white = (labels == 0) * np.uint8(255)  # where the label is sky
    drawn = training.TrainingScenes(np.stack([white, white, white, labels], axis=-1), [{}] * 8)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(60):
        scene, image, shares = training.random_crop(drawn, rng, (20, 100), 64)
        assert image.shape == (64, 64, 3)
        assert shares.sum() == pytest.approx(1)
        assert shares[0] == pytest.approx(image.mean() / 255, abs=0.03)
        assert set(np.flatnonzero(shares)) <= set(np.unique(labels[scene]))
        seen.append(shares > 0)
    assert np.mean(seen, axis=0).min() > 0.05  # no class is rare


def test_training_that_was_cut_off_goes_on_to_the_same_weights(training, tmp_path, monkeypatch):
    tiny = {"steps": 3, "batch": 8, "scenes": 64, "validation": 1, "warmup": 2, "threads": 1, "every": 2}
    common = [*(f"--{name}={value}" for name, value in tiny.items()), f"--work={tmp_path / 'work'}"]
    checkpoint = tmp_path / "work" / "checkpoint.pt"

    def run(out, *more):
        training.train(training.parse_arguments([*common, f"--out={tmp_path / out}", *more]))

    run("whole")
    assert not checkpoint.exists()
    rate = training.learning_rate

    def cut_off(step, arguments):
        if step == 2:
            raise KeyboardInterrupt
        return rate(step, arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "learning_rate", cut_off)
        run("resumed")
    with pytest.raises(UserError, match="--batch"):
        run("resumed", "--batch=4")
    run("resumed")
    whole, resumed = (load_file(tmp_path / run / "open_clip_model.safetensors") for run in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert value.dtype == torch.float16
        assert torch.equal(value, resumed[name]), name
    assert (tmp_path / "whole" / "training_log.csv").read_text().startswith("step,loss,learning rate,CLIP,")
    checkpoint.write_bytes(b"torn")
    with pytest.raises(UserError, match="is no checkpoint"):
        run("resumed")


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


def test_training_leaves_the_bundled_weights_alone(training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = training.parse_arguments([]).out.resolve()
    assert not out.is_relative_to(DIRECTORY.parents[1])

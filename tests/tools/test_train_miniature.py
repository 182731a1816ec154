"""The training: crops and their shares, what was cut off goes on, and the bundled weights stay."""

import numpy as np
import pytest
import torch
from conftest import load_tool
from safetensors.torch import load_file
from scenes import draw_scene

from clearclip.miniature import DIRECTORY
from clearclip.utils.errors import UserError


@pytest.fixture(scope="module")
def training():
    return load_tool("train_miniature")


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


def test_training_leaves_the_bundled_weights_alone(training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = training.parse_arguments([]).out.resolve()
    assert not out.is_relative_to(DIRECTORY.parents[1])

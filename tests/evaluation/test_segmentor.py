"""The segmentor in MMSegmentation's hands: batches, preprocessors, classes of one's own, weights that are broken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from colour_model import NAMES, config, copied, ours, preprocess, theirs
from mmseg.registry import MODELS
from PIL import Image

from clearclip import UserError
from clearclip.evaluation import ClearCLIPSegmentation
from clearclip.evaluation.config import load_config

#: The fixtures ``clip``, a model that labels pixels by their colour, and ``data``.
pytest_plugins = ["colour_model"]


def test_batches_of_several_sizes(data, clip, tmp_path):
    """MMSegmentation's preprocessor takes one size at a time; here it gets them so."""
    root = copied(data, tmp_path)
    for folder in ("images", "masks"):
        for name, size in (("1", (20, 44)), ("4", (20, 44)), ("3", (50, 50))):
            path = root / folder / f"{name}.png"
            Image.open(path).resize(size, Image.Resampling.NEAREST).save(path)
    cfg = config(root, preprocessor=preprocess(test_cfg=dict(size_divisor=32)))
    wanted = theirs(cfg, tmp_path)
    cfg.test_dataloader.batch_size = 5
    np.testing.assert_array_equal(ours(cfg, tmp_path, clip), wanted)


def test_a_preprocessor_beside_the_model(data, clip, tmp_path):
    """MMEngine's runner gives it to a model that has none."""
    own = preprocess(bgr_to_rgb=False, test_cfg=dict(size_divisor=32))
    cfg = config(data, preprocessor=own)
    file = tmp_path / "cfg_drive.py"
    file.write_text(f"model = dict(type='ClearCLIPSegmentation', class_names={NAMES})\ndata_preprocessor = {own!r}\n"
                    f"test_dataloader = {cfg.test_dataloader.to_dict()!r}\n")  # fmt: skip
    np.testing.assert_array_equal(ours(load_config(file), tmp_path, clip), theirs(cfg, tmp_path))


def test_a_segmentor_of_one_s_own(data, clip, tmp_path):
    @MODELS.register_module()
    class Opposite(ClearCLIPSegmentation):
        def predict(self, inputs, data_samples=None):
            for sample in super().predict(inputs, data_samples):
                sample.pred_methods.data = len(NAMES) - 1 - sample.pred_methods.data
            return data_samples

    try:
        plain, other = (ours(config(data, model_type=kind), tmp_path / f"{kind}", clip)
                        for kind in ("ClearCLIPSegmentation", "Opposite"))  # fmt: skip
        np.testing.assert_array_equal(other[1], plain[1][::-1])
    finally:
        MODELS.module_dict.pop("Opposite")


def test_nan_is_an_error(tmp_path, tiny_folder, tiny_name):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text((tiny_folder / "open_clip_config.json").read_text())
    state = torch.load(tiny_folder / "open_clip_pytorch_model.bin", weights_only=True)
    state["visual.proj"] = state["visual.proj"].clone()
    state["visual.proj"][3, 4] = float("nan")
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match=r"NaN.*visual\.proj"):
        ClearCLIPSegmentation(model_name=f"local-dir:{folder}", class_names=["a", "b"], device="cpu")

    segmentor = ClearCLIPSegmentation(model_name=tiny_name, class_names=["a", "b"], device="cpu")
    image = torch.zeros(1, 3, 64, 64)
    image[0, 0, 5, 5] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        segmentor.predict(image)

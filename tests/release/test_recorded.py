"""Outputs of the authors' own segmentor, recorded in fp32 on a CPU: ours must compute the same.

``recorded.npz`` has, under ``METHOD|RESIDUAL DROPPED|CASE|``, ``pred``: labels at the original size, (H, W) uint8; and
``raw``: what the release computes for each word before scaling and softmax, (words, H, W) float32, of which every third
row and column were kept.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from tiny import TINY, named_weights, sized_image

from clearclip import ClearCLIP

RECORDED = np.load(Path(__file__).with_name("recorded.npz"))
CLASSES = ["sky, cloud", "hill", "tree", "horse, pony, foal", "grass"]
WORD_TO_CLASS = [0, 0, 1, 2, 3, 3, 3, 4]
CASES = {  # input, window, stride, original size
    "whole": ((64, 64), 0, 0, (64, 64)),
    "wide": ((96, 144), 0, 0, (80, 120)),
    "slide": ((112, 176), 96, 48, (112, 176)),
}
METHODS = ("vanilla", "MaskCLIP", "SCLIP", "ClearCLIP", "GEM")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ClearCLIP:
    folder = tmp_path_factory.mktemp("release")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    state = open_clip.model.CLIP(**TINY).state_dict()
    torch.save(named_weights(state), folder / "open_clip_pytorch_model.bin")
    return ClearCLIP.from_pretrained(f"local-dir:{folder}", device="cpu", precision="fp32")


def class_probabilities(raw: np.ndarray) -> np.ndarray:
    """(words, H, W) similarities to (classes, H, W): softmax over words, the largest word of each class."""
    exponentials = np.exp(50 * (raw.astype(np.float64) - raw.max(axis=0)))
    words = exponentials / exponentials.sum(axis=0)
    return np.stack([words[np.equal(WORD_TO_CLASS, label)].max(axis=0) for label in range(len(CLASSES))])


def test_all_records_are_compared():
    keys = ("|".join(key) for key in product(METHODS, "01", CASES, ("pred", "raw")))
    assert set(keys) == set(RECORDED.files)


@pytest.mark.filterwarnings("ignore:model_type='vanilla' with ignore_residual=True")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_recorded(model, method, dropped, case):
    size, window, stride, original = CASES[case]
    segmentor = MODELS.build(
        dict(
            type="ClearCLIPSegmentation",
            model=model,
            model_type=method,
            ignore_residual=dropped,
            slide_crop=window,
            slide_stride=stride,
            class_names=CLASSES,
            logit_scale=50,
            keep_logits=True,
        )
    )
    sample = SegDataSample(metainfo=dict(ori_shape=original))
    (result,) = segmentor.predict(sized_image(*size)[None], [sample])
    wanted = class_probabilities(RECORDED[f"{method}|{dropped:d}|{case}|raw"])
    np.testing.assert_allclose(result.seg_logits.data.numpy()[:, ::3, ::3], wanted, atol=1e-5)
    np.testing.assert_array_equal(result.pred_sem_seg.data[0].numpy(), RECORDED[f"{method}|{dropped:d}|{case}|pred"])

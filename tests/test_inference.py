"""Windows, thresholds and labels against the whole pipeline written out with loops, to 1e-4 in fp32."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from tiny_reference import CLASSES, PATCH, WORD_TO_CLASS, image_of

import clearclip.evaluation  # noqa: F401  (registers the segmentor)

#: Fixtures: the tiny model written out with loops.
pytest_plugins = ["tiny_reference"]


def build(tiny_name: str, **options):
    return MODELS.build(
        dict(
            type="ClearCLIPSegmentation",
            model_name=tiny_name,
            class_names=CLASSES,
            device="cpu",
            **{"slide_crop": 64, "slide_stride": 32, "keep_logits": True, **options},
        )
    )


GEOMETRIES = {
    "one window, exact": ((64, 64), 64, 32, (64, 64)),
    "two windows, exact": ((64, 96), 64, 32, (64, 96)),
    "overlap, last one shifted back": ((80, 107), 64, 32, (80, 107)),
    "stride equals window": ((64, 150), 64, 64, (100, 233)),
    "smaller than the window, padded": ((37, 50), 64, 32, (74, 100)),
    "narrower only": ((100, 45), 64, 32, (50, 23)),
    "window no multiple of the patch": ((75, 90), 44, 20, (75, 90)),
    "another size than the original": ((64, 90), 64, 32, (131, 187)),
    "whole image": ((64, 96), 0, 32, (128, 190)),
    "whole image, no multiple of the patch": ((67, 93), 0, 0, (134, 186)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("threshold", [0.0, 0.35])
def test_windows(tiny_name, tiny_tower, tiny_text, name, threshold):
    (height, width), crop, stride, original = GEOMETRIES[name]
    image = image_of(height, width, seed=height)
    segmentor = build(tiny_name, slide_crop=crop, slide_stride=stride, prob_thd=threshold)
    sample = SegDataSample(metainfo=dict(ori_shape=original))
    (result,) = segmentor.predict(image[None], [sample])
    check(result, image, tiny_tower, tiny_text, crop, stride, original, threshold)


@pytest.mark.parametrize("height, width, original", [(64, 96, (128, 190)), (96, 64, (80, 53)), (67, 93, (134, 186))])
def test_whole_images_in_two_steps(tiny_name, tiny_tower, tiny_text, height, width, original):
    """PEARL's and ResCLIP's protocols resize patches to the input's size first; another map than in one step."""
    image = image_of(height, width, seed=height)
    sample = SegDataSample(metainfo=dict(ori_shape=original))
    once, twice = (
        build(tiny_name, slide_crop=0, whole_image_resize=resize, prob_thd=0.3).predict(image[None], [sample.clone()])
        for resize in ("once", "twice")
    )
    check(once[0], image, tiny_tower, tiny_text, 0, 0, original, 0.3)
    check(twice[0], image, tiny_tower, tiny_text, 0, 0, original, 0.3, resizes=2)
    assert (once[0].seg_logits.data - twice[0].seg_logits.data).abs().max() > 1e-3


def check(result, image, tower, text, crop, stride, original, threshold, resizes=1):
    logits = reference.logits(image.double().numpy(), tower.features, text, PATCH, crop, stride, original, resizes)
    wanted = reference.probabilities(logits, WORD_TO_CLASS, 50)
    got = result.seg_logits.data.numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    labels = result.pred_sem_seg.data[0].numpy()
    expected = reference.labels(wanted, threshold)
    top = np.sort(wanted, axis=0)
    open_to_rounding = (top[-1] - top[-2] < 1e-4) | (np.abs(top[-1] - threshold) < 1e-4)
    assert len(np.unique(expected)) > 1, "an image of one label tests nothing"
    assert (labels == expected)[~open_to_rounding].all()
    assert open_to_rounding.mean() < 0.01


def test_batch_of_different_sizes(tiny_name, tiny_tower, tiny_text):
    """Windows of all images share batches; no image changes another's result."""
    sizes = [(64, 64), (37, 50), (80, 107), (64, 96)]
    images = [image_of(*size, seed=index) for index, size in enumerate(sizes)]
    originals = [(70, 70), (74, 100), (80, 107), (32, 48)]
    segmentor = build(tiny_name, window_batch=3, prob_thd=0.3)
    samples = [SegDataSample(metainfo=dict(ori_shape=size)) for size in originals]
    results = segmentor.predict(images, samples)
    assert len(results) == 4
    for result, image, original in zip(results, images, originals, strict=True):
        check(result, image, tiny_tower, tiny_text, 64, 32, original, 0.3)


def test_without_samples(tiny_name):
    segmentor = build(tiny_name)
    images = torch.stack([image_of(64, 80, 1), image_of(64, 80, 2)])
    results = segmentor.predict(images)
    assert [tuple(result.pred_sem_seg.data.shape) for result in results] == [(1, 64, 80)] * 2
    assert not torch.equal(results[0].seg_logits.data, results[1].seg_logits.data)


def test_keep_logits_off(tiny_name):
    (result,) = build(tiny_name, keep_logits=False).predict(image_of(64, 64)[None])
    assert "seg_logits" not in result
    assert "pred_sem_seg" in result

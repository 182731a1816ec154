"""Confusion counts of a batch against counting pixel by pixel, on both paths."""

from __future__ import annotations

import pytest
import torch

from clearclip.evaluation.confusion import _count_on_gpu, _read, count_batch

#: Classes, the label that does not count, and the dtype of the truth.
CASES = [
    (5, 255, torch.uint8),
    (5, 0, torch.uint8),
    (3, 3, torch.uint8),
    (300, 255, torch.int32),
    (300, 65535, torch.int32),
]


def labels(classes, ignore_index, dtype):
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, classes, (13, 17), generator=generator).to(dtype)
    truth[torch.rand(13, 17, generator=generator) < 0.2] = ignore_index
    return truth, torch.randint(0, classes, (2, 13, 17), generator=generator)


def count_pixels(truth, prediction, classes, ignore_index):
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    for true_class, predicted_class in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if true_class != ignore_index:
            counts[true_class, predicted_class] += 1
    return counts.flatten()


def both_paths(truth, prediction, classes, ignore_index):
    (on_cpu,) = count_batch([truth], [prediction], classes, ignore_index).read()
    # What runs on a GPU, here on tensors of the host.
    on_gpu = _read(_count_on_gpu(truth[None], prediction[None], classes, ignore_index)[0], classes)
    return on_cpu, on_gpu


@pytest.mark.parametrize(("classes", "ignore_index", "dtype"), CASES)
def test_counts_are_those_of_a_loop(classes, ignore_index, dtype):
    truth, prediction = labels(classes, ignore_index, dtype)
    for counts in both_paths(truth, prediction, classes, ignore_index):
        for method in range(2):
            expected = count_pixels(truth, prediction[method], classes, ignore_index)
            assert torch.equal(counts.by_method[method], expected)
        assert not counts.has_bad_labels and counts.is_finite


@pytest.mark.parametrize("fault", ["truth", "prediction", "features"])
@pytest.mark.parametrize(("classes", "ignore_index", "dtype"), CASES)
def test_faults_are_counted_apart(classes, ignore_index, dtype, fault):
    truth, prediction = labels(classes, ignore_index, dtype)
    if fault == "truth":
        truth[0, 0] = classes if ignore_index != classes else classes + 1
    elif fault == "prediction":
        prediction[1, 0, 0] = classes
    else:
        prediction[:] = -1
    for counts in both_paths(truth, prediction, classes, ignore_index):
        assert counts.has_bad_labels == (fault != "features")
        assert counts.is_finite == (fault != "features")


def test_images_of_a_batch_keep_their_order():
    small, large = labels(*CASES[0]), labels(*CASES[0])
    large = (large[0].repeat(2, 1), large[1].repeat(1, 2, 1))
    counts = count_batch([small[0], large[0], small[0]], [small[1], large[1], small[1]], 5, 255).read()
    assert [int(one.by_method[0].sum()) for one in counts] == [
        int((truth != 255).sum()) for truth in (small[0], large[0], small[0])
    ]

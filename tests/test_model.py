"""The public object: batches, precision, words, thresholds and several methods at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from clearclip import ClearCLIP, LastBlock, UserError
from clearclip.utils.devices import choose_precision, possible_precisions

WORDS = ["sky", "tree", "horse"]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def test_a_list_equals_its_images(tiny_name):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=32, short_side=80)
    images = [photo(60, 100, 1), photo(200, 150, 2), photo(60, 100, 3)]
    together = model.segment(images, WORDS)
    for image, result in zip(images, together, strict=True):
        alone = model.segment(image, WORDS)
        assert result.labels.shape == image.shape[:2]
        np.testing.assert_allclose(result.probabilities, alone.probabilities, atol=1e-5)
        assert sum(result.shares.values()) == pytest.approx(1)
    assert len({result.labels.tobytes() for result in together}) == 3


def test_images_are_resized_as_in_the_protocol(tiny_name):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", short_side=64, long_side=160)
    from clearclip.utils.images import resize_to_protocol

    def size(height, width):
        return resize_to_protocol(photo(height, width), model.settings.short_side, model.settings.long_side).shape[:2]

    assert size(128, 200) == (64, 100)
    assert size(200, 128) == (100, 64)
    assert size(128, 1000) == (20, 160)  # 20.48, to the nearest
    assert size(1, 1) == (64, 64)


def test_precision():
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == "fp32"
    assert choose_precision("auto", torch.device("cuda")) == "fp16"
    with pytest.raises(UserError, match="possible: fp32"):
        choose_precision("fp16", cpu)
    with pytest.raises(UserError, match="choose from auto"):
        choose_precision("fp8", cpu)


@pytest.mark.skipif("bf16" not in possible_precisions(torch.device("cpu")), reason="this CPU has no native bf16")
def test_bf16_is_close_to_fp32(tiny_name):
    image = photo(120, 160)
    options = dict(device="cpu", slide_crop=64, slide_stride=32, short_side=96)
    exact = ClearCLIP.from_pretrained(tiny_name, **options).segment(image, WORDS)
    coarse = ClearCLIP.from_pretrained(tiny_name, precision="bf16", **options)
    assert coarse.image_encoder.visual.conv1.weight.dtype == torch.bfloat16
    assert coarse.image_encoder.visual.ln_post.weight.dtype == torch.float32
    assert (coarse.segment(image, WORDS).labels == exact.labels).mean() > 0.9


@pytest.mark.skipif("mixed" not in possible_precisions(torch.device("cpu")), reason="this CPU has no native bf16")
def test_mixed_is_closer_to_fp32_than_bf16(tiny_name):
    image = photo(120, 160)
    models = {
        name: ClearCLIP.from_pretrained(
            tiny_name, device="cpu", slide_crop=64, slide_stride=32, short_side=96, precision=name
        )
        for name in ("fp32", "bf16", "mixed")
    }
    assert models["mixed"].precision == "mixed"
    assert {parameter.dtype for parameter in models["mixed"].parameters()} == {torch.float32}
    probabilities = {name: model.segment(image, WORDS).probabilities for name, model in models.items()}
    errors = {name: np.abs(values - probabilities["fp32"]).max() for name, values in probabilities.items()}
    assert 0 < errors["mixed"] < errors["bf16"]


def test_mixed_is_refused_where_a_tower_has_other_blocks():
    with pytest.raises(UserError, match=r"mixed.*plain ViTs"):
        ClearCLIP.from_pretrained(clip_type="DINO", pretrained="random", device="cpu", precision="mixed")


def test_words_may_change(tiny_name):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=32, short_side=64)
    image = photo(64, 80)
    assert model.segment(image, ["sky"]).labels.max() == 0
    assert model.segment(image, ["sky", "tree", "horse", "dog"]).probabilities.shape == (4, 64, 80)
    assert model.segment(image, ["sky | heaven", "tree"]).classes == ["sky", "tree"]


def test_thresholds(tiny_name):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=32, short_side=64)
    image = photo(64, 80)
    result = model.segment(image, WORDS)
    middle = float(np.median(result.probabilities.max(axis=0)))
    thresholded = model.segment(image, WORDS, prob_thd=middle)
    wanted = np.where(result.probabilities.max(axis=0) < middle, 0, result.labels)
    assert (thresholded.labels == wanted).mean() > 0.999
    assert 0.3 < (result.probabilities.max(axis=0) < middle).mean() < 0.7


def test_compare_gives_what_each_method_gives_alone(tiny_name):
    """By the names that were asked for; an image, a sequence and an iterator come back in kind."""
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=64)
    image, words = photo(64, 80), ["sky", "tree | bush", "sea"]
    found = model.compare(image, words, ["SCLIP", {"type": "LastBlock", "attention": "vv"}])
    assert list(found) == ["SCLIP", "vv, no residual, no FFN"]
    alone = ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=64, method="SCLIP")
    assert (found["SCLIP"].labels == alone.segment(image, words).labels).all()
    assert (found["SCLIP"].model, found["SCLIP"].method) == (model.weights.label, "SCLIP")
    assert list(model.compare(image, words, "SCLIP")) == ["SCLIP"]
    assert [list(one) for one in model.compare((image, image), words, ["CLIP"])] == [["CLIP"], ["CLIP"]]
    read = []
    results = model.segment((read.append(k) or image for k in range(100)), words)
    assert not read and (next(results).labels == model.segment(image, words).labels).all() and len(read) < 100
    with pytest.raises(UserError, match="must be a path, a PIL image or an array, not int"):
        model.segment(3, ["sky", "tree"])
    with pytest.raises(UserError, match="no method to compare"):
        model.compare(image, words, [])


def test_methods_of_one_label_are_not_mixed_up(tiny_name):
    class Quiet(LastBlock):
        label = "Quiet"

    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=64)
    assert list(model.compare(photo(64, 80), WORDS, [Quiet(), Quiet(), "CLIP"])) == ["Quiet", "CLIP"]
    with pytest.raises(UserError, match="two methods to compare are called 'Quiet'; give one of them another label"):
        model.compare(photo(64, 80), WORDS, [Quiet(), Quiet(alpha=2.0)])


def test_it_prints_as_one_line(tiny_name):
    printed = str(ClearCLIP.from_pretrained(tiny_name, device="cpu", method="SCLIP"))
    assert printed.startswith("ClearCLIP(") and printed.endswith("method SCLIP, fp32 on cpu)") and "\n" not in printed


def test_commas_within_a_class(tiny_name):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu")
    with pytest.raises(UserError, match=r"'pole, column' has a comma; write 'pole \| column' .* or 'pole', 'column'"):
        model.segment(photo(64, 80), ["sky", "pole, column"])

"""The public object: batches, memory, precision, and that nothing is computed that is not used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from clearclip import ClearCLIP, UserError
from clearclip.backbones import dense_encoder as encoder_module
from clearclip.methods import ATTENTIONS, LastBlock
from clearclip.utils.devices import choose_precision, possible_precisions

WORDS = ["sky", "tree", "horse"]


def features(model: ClearCLIP, images: torch.Tensor) -> torch.Tensor:
    """Dense features by the model's own method."""
    return model.image_encoder(images, [model.method])[0]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("ffn", [True, False])
def test_what_is_not_used_is_not_computed(tiny_name, attention, ffn):
    """NaN in the weights that the switches leave out reaches nothing."""
    model = ClearCLIP.from_pretrained(
        tiny_name,
        method=LastBlock(attention, residual=True, ffn=ffn),
        device="cpu",
        slide_crop=64,
        slide_stride=32,
    )
    image = torch.randn(1, 3, 64, 64)
    wanted = features(model, image)
    block = model.image_encoder.blocks[-1]
    width = block.attn.in_proj_weight.shape[1]
    needed = set("v") | (set(attention) & set("qkv") if attention != "identity" else set())
    with torch.no_grad():
        for index, name in enumerate("qkv"):
            if name not in needed:
                block.attn.in_proj_weight[index * width : (index + 1) * width] = float("nan")
                block.attn.in_proj_bias[index * width : (index + 1) * width] = float("nan")
        if not ffn:
            for parameter in (*block.mlp.parameters(), *block.ln_2.parameters()):
                parameter.fill_(float("nan"))
    torch.testing.assert_close(features(model, image), wanted, rtol=0, atol=0)


def test_positions_are_resized_once_per_grid(tiny_name, monkeypatch):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu")
    calls = []
    original = encoder_module.resize_positions
    monkeypatch.setattr(encoder_module, "resize_positions", lambda *args: calls.append(args[2]) or original(*args))
    for size in ((48, 72), (48, 72), (64, 64), (48, 72)):
        features(model, torch.zeros(1, 3, *size))
    assert calls == [(6, 9), (8, 8)]
    before = features(model, torch.zeros(1, 3, 48, 72))
    with torch.no_grad():
        model.image_encoder.visual.positional_embedding.mul_(2)
    assert not torch.allclose(features(model, torch.zeros(1, 3, 48, 72)), before)


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


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out"), RuntimeError("MPS backend out of memory (18 GB)")])
def test_memory_that_runs_out_halves_the_batch(error, tiny_name, monkeypatch):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=32, window_batch=16)
    image, text = torch.randn(3, 96, 160), model.encode_text(WORDS)
    ((wanted,),) = model.similarities([image], text)
    forward, sizes = model.image_encoder.forward, []

    def scarce(windows, *rest):
        sizes.append(len(windows))
        if len(windows) > 3:
            raise error
        return forward(windows, *rest)

    monkeypatch.setattr(model.image_encoder, "forward", scarce)
    with pytest.warns(UserWarning, match="window_batch is now"):
        ((got,),) = model.similarities([image], text)
    torch.testing.assert_close(got.scores, wanted.scores)
    assert sizes[0] == 8
    assert max(sizes[2:]) <= 4
    monkeypatch.setattr(model.image_encoder, "forward", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(UserError, match="single window"), pytest.warns(UserWarning):
        model.similarities([image], text)
    monkeypatch.setattr(
        model.image_encoder, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("something else"))
    )
    with pytest.raises(RuntimeError, match="something else"):
        model.similarities([image], text)


def test_settings_of_pytorch_are_left_alone(tiny_name, monkeypatch):
    """Inside there is no TF32, in products as in convolutions; a user's deterministic=True stays on."""
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", cached=False)
    matmul, conv, seen = torch.backends.cuda.matmul, torch.backends.cudnn.conv, []
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    for tower, name in ((model.image_encoder, "forward"), (model.text_encoder, "encode")):
        own = getattr(tower, name)

        def watched(*args, own=own):
            seen.append((matmul.fp32_precision, conv.fp32_precision, torch.backends.cudnn.deterministic))
            return own(*args)

        monkeypatch.setattr(tower, name, watched)
    before = matmul.fp32_precision, conv.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        model.similarities([torch.randn(3, 64, 64)], model.encode_text(WORDS))
        assert seen == [("ieee", "ieee", True)] * 2
        assert (matmul.fp32_precision, conv.fp32_precision) == ("tf32", before[1])
    finally:
        matmul.fp32_precision = before[0]


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


def test_it_prints_as_one_line(tiny_name):
    printed = str(ClearCLIP.from_pretrained(tiny_name, device="cpu", method="SCLIP"))
    assert printed.startswith("ClearCLIP(") and printed.endswith("method SCLIP, fp32 on cpu)") and "\n" not in printed

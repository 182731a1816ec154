"""Batches of windows where memory runs out, and the settings of PyTorch while they are encoded."""

from __future__ import annotations

import pytest
import torch

from clearclip import ClearCLIP, UserError

WORDS = ["sky", "tree", "horse"]


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

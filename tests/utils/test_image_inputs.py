"""What segment() takes for an image, alone and in iterators with bad ones."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clearclip import ClearCLIP, UserError
from clearclip.utils.image_inputs import load_image

CALLS = int(os.environ.get("CLEARCLIP_THREAD_CALLS", "24"))
PIXELS = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(quick_name: str) -> ClearCLIP:
    return ClearCLIP.from_pretrained(quick_name, slide_crop=64, slide_stride=64, short_side=64)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    return path


def test_every_kind_is_the_same_image(photo: Path, model: ClearCLIP) -> None:
    content = photo.read_bytes()
    opened = open(photo, "rb")  # noqa: SIM115
    opened.read(10)
    moved = io.BytesIO(content)
    moved.seek(5)
    kinds = [
        str(photo), photo, content, bytearray(content), memoryview(content), io.BytesIO(content), opened, moved,
        Image.fromarray(PIXELS), PIXELS, torch.from_numpy(PIXELS), torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.nn.Parameter(torch.from_numpy(PIXELS).permute(2, 0, 1), requires_grad=False),
    ]  # fmt: skip
    expected = model.segment(PIXELS, ["sky", "tree"]).labels
    for image in kinds:
        assert (load_image(image) == PIXELS).all(), type(image)
        if hasattr(image, "seek") and not isinstance(image, Image.Image):
            image.seek(3)
        assert (model.segment(image, ["sky", "tree"]).labels == expected).all(), type(image)
    assert model.segment(photo, ["sky", "tree"]).image_name == "photo.png"
    with open(photo, "rb") as file:
        assert model.segment(file, ["sky", "tree"]).image_name == "photo.png"


def test_grey_and_transparent_tensors() -> None:
    grey = torch.from_numpy(PIXELS[..., 0])
    assert (load_image(grey) == PIXELS[..., :1]).all() and (load_image(grey[None]) == PIXELS[..., :1]).all()
    four = torch.cat([torch.from_numpy(PIXELS), torch.zeros(30, 40, 1, dtype=torch.uint8)], dim=-1)
    assert (load_image(four.permute(2, 0, 1)) == PIXELS).all()


@pytest.mark.parametrize(("image", "message"), [
    ("https://example.org/a.jpg", "is an address; fetch it, and give its bytes"),
    (Path("http://example.org/a.jpg"), "is an address"),
    ("s3://bucket/a.jpg", "is an address"),
    (PIXELS / 255, r"uint8.*not float64; for values from 0 to 1: \(255 \* image\)"),
    (torch.rand(3, 8, 8), r"torch.uint8.*not torch.float32; for values from 0 to 1"),
    (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"several images; give a list of them"),
    (np.zeros((2, 8, 8, 3), np.uint8), r"several images; give a list of them"),
    (np.zeros((8, 8, 3), int), "not int64"),
    (b"no image", "no image of a known kind"),
    (io.StringIO("text"), r'open it with open\(path, "rb"\)'),
    (7, "not int"),
    (None, "not NoneType"),
    ({"path": "a.jpg"}, "not dict"),
])  # fmt: skip
def test_refused_at_once_by_name(image: object, message: str, model: ClearCLIP) -> None:
    with pytest.raises(UserError, match=message):
        model.segment(image, ["sky", "tree"])


def test_threads_with_new_words(photo: Path, model: ClearCLIP) -> None:
    """``CLEARCLIP_THREAD_CALLS=1000`` for more: eight threads, each call with words that nobody had before."""
    start = threading.Barrier(8)
    words = [["sky", f"thing number {number}", f"a rather long name of the class with number {number}"]
             for number in range(CALLS)]  # fmt: skip

    def segment(number: int) -> np.ndarray:
        if number < 8:
            start.wait()  # all at once
        return model.segment(photo, words[number]).probabilities

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(segment, range(CALLS)))
    for number, probabilities in enumerate(together):
        alone = model.segment(photo, words[number]).probabilities
        np.testing.assert_allclose(probabilities, alone, atol=1e-6, err_msg=str(number))

"""A result: its numbers, and what it can be turned into."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from picture_checks import make_result, noise
from PIL import Image

from clearclip.utils.errors import UserError


def test_similarity_map_agrees_with_the_windows() -> None:
    """Upsampled window by window and averaged, as the method says."""
    result = make_result(noise(24, 40), ["a, b", "c"])
    grid = result._scores.grid
    rows, columns = len(grid.rows.starts), len(grid.columns.starts)
    total, count = torch.zeros(24, 40), torch.zeros(24, 40)
    for i, y in enumerate(grid.rows.starts):
        for j, x in enumerate(grid.columns.starts):
            patches = result._scores.scores.reshape(rows, 4, columns, 4, 3)[i, :, j, :, 1]
            window = torch.nn.functional.interpolate(patches[None, None], size=(16, 16), mode="bilinear")[0, 0]
            total[y : y + 16, x : x + 16] += window
            count[y : y + 16, x : x + 16] += 1
    np.testing.assert_allclose(result.similarity_map("b"), (total / count).numpy(), atol=1e-5)
    assert result.similarity_map("c", (7, 9)).shape == (7, 9)
    titles = [title.rsplit(" · ")[0] for title, _ in result.titled_maps((4, 4))]
    assert titles == ["a", "b (a)", "c"]
    with pytest.raises(UserError, match="'d' is none of"):
        result.similarity_map("d")


@pytest.mark.parametrize("scale", ["shared", "word"])
def test_the_scale_of_heat_maps(scale: str) -> None:
    """A word's most similar place is brightest where each map has its own scale, else that of the best word alone."""
    result = make_result(noise(40, 40), ["a", "b", "c"])
    page = result.heat_map_page(scale)
    maps = [image.pixels.astype(int).sum(axis=2) for image in page.images if image.framed][1:]
    brightest_word = max(result.classes, key=lambda word: result.similarity_map(word).max())
    for word, brightness in zip(result.classes, maps, strict=True):
        values = result.similarity_map(word, brightness.shape)
        brightest_colour = np.unravel_index(values.argmax(), values.shape)
        # Seven tenths of the last colour of magma, 252 + 253 + 191, over a grey photograph.
        if scale == "word" or word == brightest_word:
            assert brightness[brightest_colour] >= 0.7 * 696 - 3, word
        title = next(text.text for text in page.texts if text.text.startswith(f"{word} · "))
        assert title.endswith(f"{values.max():.2f}") and (" to " in title) == (scale == "word")
    with pytest.raises(UserError, match="choose from shared, word"):
        result.heat_maps("log")


def test_result_in_words_and_numbers() -> None:
    result = make_result(noise(24, 40), ["a", "b", "c"])
    counts = {name: int((result.labels == label).sum()) for label, name in enumerate("abc")}
    assert result.shares == pytest.approx({name: count / 960 for name, count in counts.items()})
    assert result.probabilities.shape == (3, 24, 40)
    assert (result.probabilities.argmax(axis=0) == result.labels).mean() > 0.999
    assert "40 × 24 pixels, 3 classes" in repr(result)


def test_masks_by_name() -> None:
    result = make_result(noise(24, 40), ["a", "b", "c"])
    assert list(result.masks) == ["a", "b", "c"] and len(result.masks) == 3
    for label, name in enumerate("abc"):
        mask = result.masks[name]
        assert mask.dtype == bool and (mask == (result.labels == label)).all()
    with pytest.raises(KeyError, match="'d' is none of this result's classes"):
        result.masks["d"]


def test_save_by_suffix(tmp_path: Path) -> None:
    """Each suffix has what its readers expect; the contents are checked where the formats are."""
    result = make_result(noise(24, 40), ["небо", "b", "c"])
    result.image_name = "photo.jpg"
    content = json.loads(result.save(tmp_path / "coco.json").read_text(encoding="utf-8"))
    assert content == result.to_coco() and content["images"][0]["file_name"] == "photo.jpg"
    assert [category["name"] for category in content["categories"]] == result.classes
    with zipfile.ZipFile(result.save(tmp_path / "masks.zip")) as archive:
        assert "SegmentationClass/photo.png" in archive.namelist()
    for suffix, beginning in ((".png", b"\x89PNG"), (".jpg", b"\xff\xd8"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        assert result.save(tmp_path / f"picture{suffix}").read_bytes().startswith(beginning)
    with pytest.raises(UserError, match="no suffix of an image format"):
        result.save(tmp_path / "picture.docx")


def test_label_maps_have_a_palette_and_keep_their_ids(tmp_path: Path) -> None:
    result = make_result(noise(24, 40), ["a", "b", "c"])
    result.colours = [(1, 2, 3), (200, 0, 0), (0, 200, 0)]
    image = Image.open(result.save_labels(tmp_path / "labels.png"))
    assert image.mode == "P" and (np.asarray(image) == result.labels).all()
    assert (np.asarray(image.convert("RGB")) == np.array(result.colours)[result.labels]).all()
    grey = cv2.imread(str(result.save_labels(tmp_path / "grey.png", palette=False)), cv2.IMREAD_UNCHANGED)
    assert (grey == result.labels).all(), "grey values are ids for OpenCV, too"
    tiff = Image.open(result.save_labels(tmp_path / "labels.tif"))
    assert (np.asarray(tiff) == result.labels).all()

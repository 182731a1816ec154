"""Pictures and label maps as files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from picture_checks import make_result
from PIL import Image

from clearclip.utils.errors import UserError
from clearclip.visualize import palette_image, save_image


def broken(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_result(np.zeros((40, 40, 3), np.uint8), [f"class {k}" for k in range(300)])
    path = result.save_labels(tmp_path / "new" / "folder" / "labels.png")
    assert result.labels.max() > 255 and (np.asarray(Image.open(path)) == result.labels).all(), "16 bits"
    for suffix in (".png", ".jpg", ".pdf"):
        assert save_image(Image.new("RGB", (99, 99)), tmp_path / f"picture{suffix}").stat().st_size > 100
    for suffix in ("jpg", "webp", "gif", "txt"):
        with pytest.raises(UserError, match=r"label maps need a format that keeps every value; use \.png"):
            result.save_labels(tmp_path / f"labels.{suffix}")
    assert (np.asarray(Image.open(result.save_labels(tmp_path / "labels.tif"))) == result.labels).all()
    with pytest.raises(UserError, match="no suffix of an image format"):
        result.save(tmp_path / "picture.txt")
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", broken)
    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(UserError, match="cannot be written"):
        save_image(Image.new("RGB", (9, 9)), path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_palette_image_keeps_ids_and_has_colours() -> None:
    labels = np.arange(300, dtype=np.uint8).reshape(20, 15) % 3
    colours = np.array([(1, 2, 3), (200, 100, 50), (9, 8, 7)], np.uint8)
    image = palette_image(labels, colours)
    assert image.mode == "P" and (np.asarray(image) == labels).all()
    assert (np.asarray(image.convert("RGB")) == colours[labels]).all()

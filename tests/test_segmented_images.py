"""Iterators over images: in their order, with bad ones among them, and iterators that fail themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip import ClearCLIP, UserError
from clearclip.utils.image_inputs import ImageFailure

PIXELS = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(quick_name: str) -> ClearCLIP:
    return ClearCLIP.from_pretrained(quick_name, slide_crop=64, slide_stride=64, short_side=64)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    return path


def mixed(photo: Path) -> Iterator[object]:
    """Eleven images, of which the fourth and the tenth are bad."""
    for number in range(11):
        yield f"missing {number}.jpg" if number in (3, 9) else photo


def test_good_images_come_before_a_bad_one(photo: Path, model: ClearCLIP) -> None:
    """And the iterator can be gone on with."""
    results = model.segment(mixed(photo), ["sky", "tree"])
    outcomes = []
    while True:
        try:
            outcomes.append(next(results).image_name)
        except UserError as error:
            outcomes.append(str(error))
        except StopIteration:
            break
    names = ["photo.png"] * 11
    names[3], names[9] = ("image missing 3.jpg does not exist", "image missing 9.jpg does not exist")
    assert outcomes == names


def test_skipping_says_what_failed_and_why(photo: Path, model: ClearCLIP) -> None:
    for images in (mixed(photo), list(mixed(photo))):
        results = list(model.segment(images, ["sky", "tree"], on_error="skip"))
        failures = {n: result for n, result in enumerate(results) if isinstance(result, ImageFailure)}
        assert len(results) == 11 and list(failures) == [3, 9]
        assert failures[3].image == "missing 3.jpg" and "does not exist" in str(failures[3].error)
    compared = list(model.compare(mixed(photo), ["sky", "tree"], ["CLIP", "ClearCLIP"], on_error="skip"))
    assert [isinstance(result, ImageFailure) for result in compared] == [n in (3, 9) for n in range(11)]
    assert isinstance(model.segment("missing.jpg", ["sky", "tree"], on_error="skip"), ImageFailure)
    with pytest.raises(UserError, match=r"missing 3\.jpg does not exist"):
        model.segment(list(mixed(photo)), ["sky", "tree"])
    with pytest.raises(UserError, match='on_error must be "raise" or "skip"'):
        model.segment(photo, ["sky", "tree"], on_error="ignore")


def test_an_iterator_that_fails_itself(photo: Path, model: ClearCLIP) -> None:
    def frames() -> Iterator[object]:
        yield photo
        yield photo
        raise OSError("the camera is gone")

    results = model.segment(frames(), ["sky", "tree"])
    assert [next(results).image_name for _ in range(2)] == ["photo.png"] * 2
    with pytest.raises(OSError, match="the camera is gone"):
        next(results)
    assert list(results) == []


def test_an_error_of_the_model_ends_the_results(photo: Path, model: ClearCLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of the batch are lost with it, so going on must not pass for a list of all results."""
    results = model.segment(iter([photo] * 20), ["sky", "tree"])
    assert [next(results).image_name for _ in range(8)] == ["photo.png"] * 8

    def fail(*arguments: object) -> None:
        raise UserError("features have NaN")

    monkeypatch.setattr(model, "score_maps", fail)
    with pytest.raises(UserError, match="features have NaN"):
        next(results)
    monkeypatch.undo()
    assert list(results) == []

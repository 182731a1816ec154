"""Images of all kinds come out as (H, W, 3) uint8 RGB, with the right pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from clearclip.errors import UserError
from clearclip.images import read_image, resize_to_protocol

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def check(array: np.ndarray, expected: list, tolerance: int = 0) -> None:
    expected = np.array(expected, dtype=int)
    assert array.dtype == np.uint8 and array.shape == expected.shape and array.flags.writeable
    assert np.abs(array.astype(int) - expected).max() <= tolerance, array


@pytest.fixture
def corners() -> Image.Image:
    """Two rows, three columns: red, green, blue over black, grey, white."""
    return Image.fromarray(
        np.array([[RED, GREEN, BLUE], [(0, 0, 0), (128, 128, 128), (255, 255, 255)]], dtype=np.uint8)
    )


def test_rgb_grey_palette_and_bilevel(tmp_path: Path, corners: Image.Image) -> None:
    pixels = np.asarray(corners).tolist()
    corners.save(tmp_path / "a.png")
    check(read_image(tmp_path / "a.png"), pixels)
    check(read_image(str(tmp_path / "a.png")), pixels)
    check(read_image(corners), pixels)
    corners.quantize(6).save(tmp_path / "p.png")
    assert Image.open(tmp_path / "p.png").mode == "P"
    check(read_image(tmp_path / "p.png"), pixels, tolerance=2)
    Image.fromarray(np.array([[0, 7, 255]], np.uint8)).save(tmp_path / "l.png")
    check(read_image(tmp_path / "l.png"), [[[0] * 3, [7] * 3, [255] * 3]])
    Image.new("1", (2, 1), 1).save(tmp_path / "1.png")
    check(read_image(tmp_path / "1.png"), [[[255] * 3] * 2])


def test_transparent_is_white(tmp_path: Path) -> None:
    half = Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8))
    half.save(tmp_path / "a.png")
    expected = [[RED, (255, 255, 255), (204, 204, 204)]]
    check(read_image(tmp_path / "a.png"), expected, tolerance=1)
    check(read_image(np.asarray(half)), expected, tolerance=1)
    Image.fromarray(np.array([[[9, 0], [9, 255]]], np.uint8), "LA").save(tmp_path / "la.png")
    check(read_image(tmp_path / "la.png"), [[[255] * 3, [9] * 3]])
    keyed = Image.new("P", (2, 1))
    keyed.putpalette([*RED, *GREEN])
    keyed.putdata([0, 1])
    keyed.save(tmp_path / "t.png", transparency=0)
    check(read_image(tmp_path / "t.png"), [[(255, 255, 255), GREEN]])


def test_sixteen_bits_and_float(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(levels).save(tmp_path / "a.tif")
    for image in (tmp_path / "a.png", tmp_path / "a.tif", levels, Image.fromarray(levels.astype(np.int32))):
        check(read_image(image), [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]])
    cv2.imwrite(str(tmp_path / "rgb.png"), np.full((1, 1, 3), (65535, 32896, 0), np.uint16))
    check(read_image(tmp_path / "rgb.png"), [[[0, 128, 255]]], tolerance=1)
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "f.tif")
    check(read_image(tmp_path / "f.tif"), [[[0] * 3, [128] * 3, [255] * 3]])


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert Image.open(tmp_path / "a.jpg").mode == "CMYK"
    check(read_image(tmp_path / "a.jpg"), [[RED] * 8] * 8, tolerance=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, corners: Image.Image, orientation: int) -> None:
    """What a viewer shows, for all eight orientations: each says where row 0 and column 0 of the file belong."""
    shown = np.asarray(corners)
    stored = {
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1],
        5: shown.transpose(1, 0, 2), 6: np.rot90(shown), 7: np.rot90(shown, 2).transpose(1, 0, 2),
        8: np.rot90(shown, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    check(read_image(tmp_path / "a.png"), shown.tolist())


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    check(read_image(tmp_path / "a.gif"), [[RED] * 4] * 3)


def test_smallest_and_large(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), BLUE).save(tmp_path / "a.png")
    check(read_image(tmp_path / "a.png"), [[BLUE]])
    Image.new("RGB", (4000, 3000), GREEN).save(tmp_path / "b.jpg")
    large = read_image(tmp_path / "b.jpg")
    assert large.shape == (3000, 4000, 3)
    assert resize_to_protocol(large).shape == (448, 597, 3)  # 4000 · 448 / 3000 = 597.3


def test_arrays() -> None:
    check(read_image(np.full((2, 1), 7, np.uint8)), [[[7] * 3]] * 2)
    check(read_image(np.full((2, 1, 1), 7, np.uint8)), [[[7] * 3]] * 2)
    view = np.zeros((4, 4, 3), np.uint8)[::2, ::-1]
    read_image(view)[:] = 9
    assert not view.any()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
        np.zeros((2, 2, 3), np.float32),
        np.zeros((2, 2, 3), np.int64),
    ],
)
def test_arrays_of_no_image(array: np.ndarray) -> None:
    with pytest.raises(UserError, match="an image array must be"):
        read_image(array)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_image(tmp_path / "nope.png")
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(UserError, match=r"text\.jpg cannot be read: it is no image"):
        read_image(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UserError, match=r"empty\.jpg cannot be read"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(UserError, match="a path, a PIL image or an array, not NoneType"):
        read_image(None)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError) as told:
        read_image(path)
    assert f"cut.{suffix} cannot be read: " in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 683), (448, 598)), ((1024, 2048), (448, 896)), ((100, 1000), (205, 2048)), ((1, 1), (448, 448))],
)
def test_protocol_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """Short side 448, long side at most 2048: 683 · 448 / 512 = 597.6, 100 · 2048 / 1000 = 204.8."""
    assert resize_to_protocol(np.zeros((*size, 3), np.uint8)).shape[:2] == expected
    assert resize_to_protocol(np.zeros((*size, 3), np.uint8), short_side=None).shape[:2] == size

"""Images of all kinds come out as (H, W, 3) uint8 RGB, with the right pixels."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from clearclip.utils.errors import UserError
from clearclip.utils.images import FORMATS, read_image, resize_to_protocol

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
#: Two rows, three columns.
CORNERS = np.array([[RED, GREEN, BLUE], [(0, 0, 0), (128, 128, 128), WHITE]], dtype=np.uint8)
LEVELS = np.array([[0, 257, 32896, 65535]], np.uint16)
GREYS = [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]
HALF = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)


def keyed() -> Image.Image:
    """A palette of red and green, of which red is transparent (to no effect)."""
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    image.info["transparency"] = 0
    return image


KINDS = {
    "rgb": (Image.fromarray(CORNERS), CORNERS, 0),
    "palette": (Image.fromarray(CORNERS).quantize(6), CORNERS, 2),
    "grey": (Image.fromarray(np.array([[0, 7, 255]], np.uint8)), [[[0] * 3, [7] * 3, [255] * 3]], 0),
    "bilevel": (Image.new("1", (2, 1), 1), [[WHITE] * 2], 0),
    "alpha": (Image.fromarray(HALF), HALF[..., :3], 0),
    "grey alpha": (Image.merge("LA", [Image.new("L", (1, 1), 9), Image.new("L", (1, 1), 0)]), [[[9] * 3]], 0),
    "transparent colour": (keyed(), [[RED, GREEN]], 0),
    "16 bits": (Image.fromarray(LEVELS), GREYS, 0),
    "32 bits": (Image.fromarray(LEVELS.astype(np.int32)), GREYS, 0),
    "array of 16 bits": (LEVELS, GREYS, 0),
    "array with alpha": (HALF, HALF[..., :3], 0),
    "array of one channel": (np.full((2, 1, 1), 7, np.uint8), [[[7] * 3]] * 2, 0),
    "float": (Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), [[[0] * 3, [128] * 3, [255] * 3]], 0),
}


def check(array: np.ndarray, expected: list, tolerance: int = 0) -> None:
    expected = np.array(expected, dtype=int)
    assert array.dtype == np.uint8 and array.shape == expected.shape and array.flags.writeable
    assert np.abs(array.astype(int) - expected).max() <= tolerance, array


@pytest.mark.parametrize(("image", "expected", "tolerance"), KINDS.values(), ids=KINDS)
def test_every_kind(tmp_path: Path, image: Image.Image | np.ndarray, expected: list, tolerance: int) -> None:
    check(read_image(image), expected, tolerance)
    if isinstance(image, Image.Image) and image.mode != "I":  # which Pillow 13 no longer writes as PNG
        path = tmp_path / ("a.tif" if image.mode == "F" else "a.png")
        image.save(path)
        check(read_image(path), expected, tolerance)
        check(read_image(str(path)), expected, tolerance)
        if image.mode in ("RGBA", "LA", "P"):  # as MMSegmentation reads it
            check(cv2.imread(str(path))[..., ::-1].copy(), expected, tolerance)


def test_kinds_that_are_files_only(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "rgb16.png"), np.full((1, 1, 3), (65535, 32896, 0), np.uint16))
    check(read_image(tmp_path / "rgb16.png"), [[[0, 128, 255]]], tolerance=1)
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    check(read_image(tmp_path / "cmyk.jpg"), [[RED] * 8] * 8, tolerance=3)
    frames = [Image.new("RGB", (4, 3), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    check(read_image(tmp_path / "a.gif"), [[RED] * 4] * 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int) -> None:
    """What a viewer shows, for all eight orientations: each says where row 0 and column 0 of the file belong."""
    stored = {
        1: CORNERS, 2: CORNERS[:, ::-1], 3: CORNERS[::-1, ::-1], 4: CORNERS[::-1],
        5: CORNERS.transpose(1, 0, 2), 6: np.rot90(CORNERS), 7: np.rot90(CORNERS, 2).transpose(1, 0, 2),
        8: np.rot90(CORNERS, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    check(read_image(tmp_path / "a.png"), CORNERS)


def test_what_comes_out_is_a_copy() -> None:
    view = np.zeros((4, 4, 3), np.uint8)[::2, ::-1]
    read_image(view)[:] = 9
    assert not view.any()


@pytest.mark.parametrize("array", [
    np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8), np.zeros((1, 2, 2, 3), np.uint8),
    np.zeros((2, 2, 3), np.float32),
])  # fmt: skip
def test_arrays_of_no_image(array: np.ndarray) -> None:
    with pytest.raises(UserError, match="an image array must be"):
        read_image(array)


def test_levels_of_12_bits_are_told(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 4095]], np.uint16)).save(tmp_path / "raw.tif")
    with pytest.warns(UserWarning, match=r"raw\.tif has 16 bits but hardly a level above 4095.*--levels 0 4095"):
        read_image(tmp_path / "raw.tif")


@pytest.fixture
def ghost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an EPS file called photo.jpg; the Ghostscript here leaves a mark where it is started."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it is looked up once
    (tmp_path / "photo.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n")
    return tmp_path


def test_no_image_starts_a_program(ghost: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"photo\.jpg cannot be read: it is no image of a known kind \(JPEG, "):
        read_image(ghost / "photo.jpg")
    assert not (ghost / "started").exists()
    with pytest.raises(OSError), Image.open(ghost / "photo.jpg") as image:
        image.load()
    assert (ghost / "started").exists(), "what is avoided"


def test_no_other_place_lets_pillow_choose() -> None:
    """Whatever opens a file in the package and its tools for datasets says which formats it may have."""
    root = Path(__file__).resolve().parents[2]
    lines = [line for folder in ("clearclip", "datasets") for file in (root / folder).rglob("*.py")
             for line in file.read_text(encoding="utf-8").splitlines() if "Image.open(" in line]  # fmt: skip
    assert lines and all("formats=" in line for line in lines), lines


def test_only_formats_that_are_listed_are_tried(tmp_path: Path) -> None:
    Image.init()
    # SPIDER would claim .png for good; HEIF is an optional package's, which another test may have registered.
    for name in sorted((Image.SAVE.keys() & Image.OPEN.keys()) - {"SPIDER", "HEIF"}):
        path, mode = tmp_path / f"{name}.png", {"XBM": "1", "MSP": "1", "WMF": "L"}.get(name, "RGB")
        try:
            Image.new(mode, (16, 16)).save(path, format=name)
        except (OSError, KeyError, ValueError):  # stubs
            continue
        if name in FORMATS or name == "MPO":  # by content a JPEG
            read_image(path)
        else:
            with pytest.raises(UserError, match="no image of a known kind"):
                read_image(path)


def test_large_images_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def png(side: int) -> Path:
        header = struct.pack(">4sIIBBBBB", b"IHDR", side, side, 8, 0, 0, 0, 0)
        chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        (tmp_path / f"{side}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I4s", 99, b"IDAT"))
        return tmp_path / f"{side}.png"

    for side in (8000, 20000):  # beyond our own bound, and beyond PIL's
        with pytest.raises(UserError, match=r"more than 50,000,000 pixels; .*CLEARCLIP_MAX_PIXELS"):
            read_image(png(side))
    monkeypatch.setenv("CLEARCLIP_MAX_PIXELS", str(10**9))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # restored afterwards
    with pytest.raises(UserError, match=r"20000\.png cannot be read: "):
        read_image(png(20000))
    monkeypatch.setenv("CLEARCLIP_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="must be a whole number, not 'many'"):
        read_image(png(8))


def test_home_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (2, 1)).save(tmp_path / "a.png")
    assert read_image("~/a.png").shape == (1, 2, 3)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for suffix in ("jpg", "png", "gif", "webp", "tif"):
        path = tmp_path / f"cut.{suffix}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(UserError, match=rf"cut\.{suffix} cannot be read: "):
            read_image(path)
    os.mkfifo(tmp_path / "fifo.png")
    for image, told in ((tmp_path / "nope.png", "does not exist"), (tmp_path, "is a folder"), (None, "not NoneType"),
                        (tmp_path / "text.jpg", r"text\.jpg cannot be read: it is no image"), ("a\0b", "a\0b"),
                        (tmp_path / "fifo.png", "does not exist"), ("x" * 5000, "too long|not exist")):  # fmt: skip
        with pytest.raises(UserError, match=told):
            read_image(image)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 683), (448, 598)), ((1024, 2048), (448, 896)), ((100, 1000), (205, 2048)), ((1, 1), (448, 448))],
)
def test_protocol_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """Short side 448, long side at most 2048: 683 · 448 / 512 = 597.6, 100 · 2048 / 1000 = 204.8."""
    assert resize_to_protocol(np.zeros((*size, 3), np.uint8)).shape[:2] == expected
    assert resize_to_protocol(np.zeros((*size, 3), np.uint8), short_side=None).shape[:2] == size

"""By which decoder a file is read, and why."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from storages import READ, encoded, some_picture

from clearclip.rasters.headers import ALIKE, DEEP, OPENCV, PILLOW, RASTERIO, file_format, read_header

PICTURE = some_picture()


@pytest.mark.parametrize(
    ("name", "decoder", "reason"),
    [
        ("rgb.tif", ALIKE, ""),
        ("near_infrared.tif", PILLOW, "a fourth band, by which OpenCV multiplies colours"),
        ("unspecified_fourth.tif", ALIKE, ""),
        ("uint16_rgb.tif", DEEP, "16 bits"),
        ("uint16_planes.tif", RASTERIO, "3 band(s) of 16 bits"),
        ("turned_6.tif", OPENCV, "turned"),
        ("turned_3.tif", ALIKE, ""),
        ("zstd.tif", PILLOW, "compression 50000, which OpenCV lacks"),
        ("lerc.tif", RASTERIO, "compression 34887"),
        ("float.tif", RASTERIO, "signed or float levels"),
        ("nbits_12.tif", RASTERIO, "3 band(s) of 12 bits"),
        ("sbit_12.png", DEEP, "16 bits"),
        ("largest_1023.ppm", PILLOW, "levels up to 1023, which OpenCV leaves out of account"),
        ("turned.avif", PILLOW, "an AVIF, which OpenCV does not turn"),
    ],
)
def test_decoders(name: str, decoder: str, reason: str, tmp_path: Path) -> None:
    write, _ = READ[name]
    write(tmp_path / name, PICTURE)
    with (tmp_path / name).open("rb") as file:
        header = read_header(file)
    assert (header.decoder, header.reason) == (decoder, reason)
    if header.size is not None:
        # Of the stored picture, which is not turned yet.
        assert header.size == ((45, 67) if name == "turned_6.tif" else (67, 45))
    assert header.depth == (12 if "12" in name else None)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000"])
def test_formats_are_known_by_their_first_bytes(name: str) -> None:
    data = encoded(PICTURE, name)
    assert file_format(data[:16]) == name
    with io.BytesIO(data) as file:
        assert read_header(file).format == name


def test_other_files_have_no_format() -> None:
    for head in (b"", b"%!PS-Adobe-3.0 EPSF", b"P7\nWIDTH 3", b"Pictures"):
        assert file_format(head) is None

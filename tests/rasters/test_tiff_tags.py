"""What the tags of a TIFF mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from storages import GREY, READ, some_picture

from clearclip.rasters.tiff_tags import TiffDescription, tiff_tags


def description_of(path: Path) -> TiffDescription:
    with path.open("rb") as file:
        return TiffDescription(tiff_tags(file, file.read(16)))


@pytest.mark.parametrize("name", ["rgb.tif", "big.tif", "uint16_big_endian.tif", "planes.tif", "turned_6.tif"])
def test_tags_that_rasterio_and_tifffile_write(name: str, tmp_path: Path) -> None:
    write, _ = READ[name]
    write(tmp_path / name, some_picture())
    description = description_of(tmp_path / name)
    assert description.bits == (16 if "uint16" in name else 8,) * 3
    assert description.has_planes == (name == "planes.tif")
    assert description.is_transposed == (name == "turned_6.tif")
    assert description.is_georeferenced == (name != "turned_6.tif")
    assert description.is_unsigned and not description.has_alpha


def test_grey_with_alpha(tmp_path: Path) -> None:
    GREY["grey_alpha.tif"](tmp_path / "a.tif", some_picture())
    assert description_of(tmp_path / "a.tif").is_grey_with_alpha


@pytest.mark.parametrize(
    ("tags", "depth"),
    [
        ({258: (8, 8, 8)}, None),
        ({258: (12,)}, 12),
        ({258: (16,), 281: (4095,)}, 12),  # the largest level that a camera can reach
        ({258: 16, 281: 65535}, None),
        ({258: (16,), 281: (200,)}, None),  # a dark picture's largest level is no depth
        ({258: (32,), 339: 3}, None),
        ({258: (5, 6, 5)}, None),
        ({}, 1),
    ],
)
def test_depth(tags: dict, depth: int | None) -> None:
    assert TiffDescription(tags).depth == depth

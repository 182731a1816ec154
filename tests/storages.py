"""One picture, stored in the ways that rasterio, GDAL, tifffile and Pillow use: by default, or when they are asked.

Nothing here uses the package: what it writes is the independent side of a comparison.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

rasterio = pytest.importorskip("rasterio")
tifffile = pytest.importorskip("tifffile")

NEAR_INFRARED = 7
#: Pixels of a metre and a half in UTM's zone 33, turned by nothing.
GEOREFERENCE = dict(crs="EPSG:32633", transform=rasterio.Affine(1.5, 0, 500_000, 0, -1.5, 5_000_000))


def some_picture(height: int = 45, width: int = 67, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8, smooth, with all levels."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def write_raster(path: Path, bands: np.ndarray, **options: Any) -> None:
    """(bands, height, width) as a raster by rasterio's defaults, but for ``options``."""
    count, height, width = bands.shape
    driver = "JP2OpenJPEG" if path.suffix == ".jp2" else "GTiff"
    settings = dict(driver=driver, count=count, height=height, width=width, dtype=bands.dtype, **GEOREFERENCE)
    with warnings.catch_warnings(), rasterio.open(path, "w", **{**settings, **options}) as dataset:
        warnings.simplefilter("ignore")
        dataset.write(bands)


def planes(picture: np.ndarray, *more: int) -> np.ndarray:
    """(H, W, 3) as bands, and a band of constants for each further value."""
    constants = [np.full(picture.shape[:2], value, picture.dtype) for value in more]
    return np.stack([*np.moveaxis(picture, -1, 0), *constants])


def by_rasterio(
    change: Callable[[np.ndarray], np.ndarray] = planes, **options: Any
) -> Callable[[Path, np.ndarray], None]:
    """A writer of a picture whose bands are made by ``change``."""
    return lambda path, picture: write_raster(path, change(picture), **options)


def by_tifffile(change: Callable[[np.ndarray], np.ndarray], **options: Any) -> Callable[[Path, np.ndarray], None]:
    """The same through tifffile."""
    return lambda path, picture: tifffile.imwrite(path, change(picture), **options)


def wide(picture: np.ndarray) -> np.ndarray:
    """8 bits in the upper half of 16."""
    return picture.astype(np.uint16) * 257


def stored_turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """How a picture lies in a file whose orientation tag turns it back."""
    return {
        1: picture, 2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1], 5: picture.swapaxes(0, 1),
        6: np.rot90(picture), 7: np.rot90(picture, 2).swapaxes(0, 1), 8: np.rot90(picture, -1),
    }[orientation].copy()  # fmt: skip


def turned_tiff(orientation: int, dtype: Any = np.uint8, **options: Any) -> Callable[[Path, np.ndarray], None]:
    """A TIFF with an orientation tag."""

    def write(path: Path, picture: np.ndarray) -> None:
        values = wide(picture) if dtype == np.uint16 else picture
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, stored_turned(values, orientation), photometric="rgb", extratags=tags, **options)

    return write


def turned_avif(path: Path, picture: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored_turned(picture, 6)).save(path, quality=100, subsampling="4:4:4", exif=exif)


def png_of_12_bits(path: Path, picture: np.ndarray) -> None:
    """16 bits whose chunk sBIT says that 12 of them are in use; libpng's writers put the levels where they are."""
    levels = np.round(picture.astype(float) * 4095 / 255).astype(">u2")
    height, width, _ = picture.shape
    rows = b"".join(b"\0" + row.tobytes() for row in levels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"sBIT", bytes([12, 12, 12])), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def gdal_mask(path: Path, picture: np.ndarray) -> None:
    """A mask within the file, which hides its upper half."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_raster(path, planes(picture))
        with rasterio.open(path, "r+") as dataset:
            mask = np.full(picture.shape[:2], 255, np.uint8)
            mask[: len(mask) // 2] = 0
            dataset.write_mask(mask)


def named_bands(path: Path, picture: np.ndarray) -> None:
    """Blue first and near infrared last, as satellites have them, with names."""
    bands = planes(wide(picture)[..., ::-1], 9)
    count, height, width = bands.shape
    names = ("blue", "green", "red", "undefined")
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype="uint16") as dataset:
        dataset.write(bands)
        dataset.colorinterp = [rasterio.enums.ColorInterp[name] for name in names]


def with_alpha(picture: np.ndarray, opacity: int = 0) -> np.ndarray:
    return np.dstack([picture, np.full(picture.shape[:2], opacity, picture.dtype)])


def grey(picture: np.ndarray) -> np.ndarray:
    """The first band three times: what a grey file of it means."""
    return np.repeat(picture[..., :1], 3, axis=-1)


def pnm(largest: int) -> Callable[[Path, np.ndarray], None]:
    """A PPM that states its largest level."""

    def write(path: Path, picture: np.ndarray) -> None:
        levels = np.round(picture.astype(float) * largest / 255).astype(">u2" if largest > 255 else np.uint8)
        path.write_bytes(f"P6\n{picture.shape[1]} {picture.shape[0]}\n{largest}\n".encode() + levels.tobytes())

    return write


def _premultiplied(picture: np.ndarray) -> np.ndarray:
    return planes(picture // 2, 128)


LOSSLESS = dict(QUALITY=100, REVERSIBLE="YES")
UINT16 = lambda picture: planes(wide(picture))  # noqa: E731
LEVELS_12 = lambda picture: planes(np.round(picture.astype(float) * 4095 / 255).astype(np.uint16))  # noqa: E731

#: Storages that mean the picture itself: file name → (writer, tolerance in levels).
READ: dict[str, tuple[Callable[[Path, np.ndarray], None], int]] = {
    "rgb.tif": (by_rasterio(), 0),
    "near_infrared.tif": (by_rasterio(lambda picture: planes(picture, NEAR_INFRARED)), 0),
    "alpha_0.tif": (by_tifffile(with_alpha, photometric="rgb", extrasamples=["unassalpha"]), 0),
    "alpha_in_planes.tif": (by_rasterio(lambda picture: planes(picture, NEAR_INFRARED), interleave="band"), 0),
    "unspecified_fourth.tif": (by_rasterio(lambda picture: planes(picture, 9), photometric="RGB", alpha="NO"), 0),
    "premultiplied.tif": (by_rasterio(_premultiplied, photometric="RGB", alpha="PREMULTIPLIED"), 2),
    "uint16.tif": (by_rasterio(UINT16), 0),
    "uint16_rgb.tif": (by_rasterio(UINT16, photometric="RGB"), 0),
    "uint16_planes.tif": (by_rasterio(UINT16, photometric="RGB", interleave="band"), 0),
    "uint16_planes_tifffile.tif": (by_tifffile(UINT16, photometric="rgb", planarconfig="separate"), 0),
    "uint16_alpha.tif": (by_rasterio(lambda picture: planes(wide(picture), 0), photometric="RGB", alpha="YES"), 0),
    "uint16_big_endian.tif": (by_rasterio(UINT16, photometric="RGB", endianness="BIG"), 0),
    "planes.tif": (by_rasterio(interleave="band"), 0),
    "two_more_bands.tif": (by_rasterio(lambda picture: planes(picture, 1, 2), photometric="RGB"), 0),
    "named_bands.tif": (named_bands, 0),
    "minisblack.tif": (by_rasterio(photometric="MINISBLACK"), 0),
    "tiles.tif": (by_rasterio(tiled=True, blockxsize=16, blockysize=16), 0),
    "big.tif": (by_rasterio(bigtiff="YES"), 0),
    "lzw.tif": (by_rasterio(compress="lzw", predictor=2), 0),
    "zstd.tif": (by_rasterio(compress="zstd"), 0),
    "lerc.tif": (by_rasterio(compress="lerc"), 0),
    "webp.tif": (by_rasterio(compress="webp", WEBP_LOSSLESS="YES"), 0),
    "nbits_12.tif": (by_rasterio(LEVELS_12, photometric="RGB", nbits=12), 0),
    "float.tif": (by_rasterio(lambda picture: planes(picture.astype(np.float32) / 255)), 0),
    "internal_mask.tif": (gdal_mask, 0),
    "no_colours.jp2": (by_rasterio(photometric=None, **LOSSLESS), 0),
    "uint16.jp2": (by_rasterio(UINT16, **LOSSLESS), 0),
    "rgb_pillow.jp2": (lambda path, picture: Image.fromarray(picture).save(path, irreversible=False), 0),
    "turned.avif": (turned_avif, 4),
    "sbit_12.png": (png_of_12_bits, 0),
    "uint16.png": (lambda path, picture: path.write_bytes(_png_of_16_bits(picture)), 0),
    "largest_1023.ppm": (pnm(1023), 1),
    "largest_100.ppm": (pnm(100), 2),
    "largest_65535.ppm": (pnm(65535), 1),
    **{f"turned_{n}.tif": (turned_tiff(n), 0) for n in (3, 6, 8)},
    "turned_6_uint16.tif": (turned_tiff(6, np.uint16), 0),
    "turned_6_planes.tif": (
        lambda path, picture: tifffile.imwrite(
            path, np.moveaxis(stored_turned(wide(picture), 6), -1, 0), photometric="rgb", planarconfig="separate",
            extratags=[(274, "H", 1, 6, True)],
        ), 0),
}  # fmt: skip


def _png_of_16_bits(picture: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", wide(picture)[..., ::-1])[1].tobytes()


#: Storages of its first band: file name → writer.
GREY: dict[str, Callable[[Path, np.ndarray], None]] = {
    "grey.tif": by_rasterio(lambda picture: planes(picture)[:1]),
    "grey_turned.tif": by_tifffile(
        lambda picture: stored_turned(picture[..., 0], 6), photometric="minisblack", extratags=[(274, "H", 1, 6, True)]
    ),
    "grey_uint16_turned.tif": by_tifffile(
        lambda picture: stored_turned(wide(picture)[..., 0], 8), photometric="minisblack",
        extratags=[(274, "H", 1, 8, True)],
    ),
    "grey_uint16.tif": by_rasterio(lambda picture: UINT16(picture)[:1]),
    "white_is_zero.tif": by_rasterio(lambda picture: 255 - planes(picture)[:1], photometric="MINISWHITE"),
    "white_is_zero_uint16.tif": by_rasterio(lambda picture: 65535 - UINT16(picture)[:1], photometric="MINISWHITE"),
    "grey_alpha.tif": by_rasterio(lambda picture: planes(picture)[:2], alpha="YES"),
    "grey_nbits_12.tif": by_rasterio(lambda picture: LEVELS_12(picture)[:1], nbits=12),
    "grey.jp2": by_rasterio(lambda picture: planes(picture)[:1], **LOSSLESS),
}  # fmt: skip

#: Storages of which nothing says what they mean: file name → (writer, what the refusal says).
REFUSED: dict[str, tuple[Callable[[Path, np.ndarray], None], str]] = {
    "five_bands.tif": (by_rasterio(lambda picture: planes(picture, 1, 2)), r"has 5 bands.*--bands 3 2 1"),
    "four_of_uint16.tif": (by_rasterio(lambda picture: planes(wide(picture), 9)), r"has 4 bands.*--bands"),
    "two_bands.tif": (by_rasterio(lambda picture: planes(picture)[:2]), r"has 2 bands.*--bands"),
    "four.jp2": (by_rasterio(lambda picture: planes(picture, 9), **LOSSLESS), r"has 4 bands.*--bands"),
    "lab.tif": (by_tifffile(lambda picture: picture, photometric="cielab"), r"has colours in L\*a\*b\*.*; convert it"),
    "cmyk_uint16.tif": (by_rasterio(lambda picture: planes(wide(picture), 0), photometric="CMYK"), r"has 4 bands"),
    "int16.tif": (by_rasterio(lambda picture: planes(picture.astype(np.int16) * 16)), r"type int16.*--levels"),
    "uint32.tif": (by_rasterio(lambda picture: planes(picture.astype(np.uint32))), r"type uint32.*--levels 0 4095"),
    "reflectance.tif": (
        by_rasterio(lambda picture: planes(picture.astype(np.float32) * 40)), r"type float32.*--levels 0 4095"
    ),
}  # fmt: skip


def encoded(picture: np.ndarray, format_name: str, **options: Any) -> bytes:
    """A picture as Pillow stores it."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=format_name, **options)
    return buffer.getvalue()

"""What the first bytes and the tags of a picture say, and by which decoder it is therefore read.

OpenCV (MMSegmentation's evaluations) and Pillow (everything else) read most files alike, bit for bit. The others are
listed here: for each of them one decoder is chosen, by what the file's own tags say, and used everywhere.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

#: Both decoders read the file alike.
ALIKE = "alike"
#: One of them reads what the tags say; "deep" is OpenCV at all bits.
OPENCV, PILLOW, DEEP = "opencv", "pillow", "deep"
#: Neither does: GDAL.
RASTERIO = "rasterio"

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIF", b"heix": "HEIF", b"hevc": "HEIF", b"mif1": "HEIF"}
_PNM_HEADER = re.compile(rb"P[1-6](?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)\s")

# Colour spaces of JPEG 2000.
_SRGB, _GREY, _SYCC = 16, 17, 18

# Tags of TIFF.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_ORIENTATION, _SAMPLES, _MAX_SAMPLE, _PLANAR, _EXTRA, _FORMAT = 274, 277, 281, 284, 338, 339
_PIXEL_SCALE, _TIE_POINTS, _MATRIX, _GEO_KEYS = 33550, 33922, 34264, 34735
# Values of its photometric interpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
#: CIE's L*a*b* in three encodings, and LogL and LogLuv.
OTHER_COLOUR_SPACES = (8, 9, 10, 32844, 32845)
_JPEG_COMPRESSION, _UNSIGNED = 7, 1
#: None, fax, LZW, JPEG, deflate and packbits, which all decoders have; LZMA and Zstandard, which OpenCV lacks.
_COMMON_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}
_PILLOW_COMPRESSIONS = {34925, 50000}
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2


@dataclass(frozen=True)
class Header:
    """What is known of a picture before it is decoded.

    Attributes:
        format: Pillow's name of it, or None for other files.
        decoder: one of the constants of this module.
        reason: why it is not the usual one; empty otherwise.
        size: width and height where a TIFF states them.
        depth: bits of its levels, where the file states that they are fewer than those of its type.
        orientation: as in EXIF, of a TIFF.
        photometric: of a TIFF.
        georeferenced: a TIFF with coordinates.
    """

    format: str | None
    decoder: str = ALIKE
    reason: str = ""
    size: tuple[int, int] | None = None
    depth: int | None = None
    orientation: int = 1
    photometric: int | None = None
    georeferenced: bool = False


def file_format(head: bytes) -> str | None:
    """Pillow's name of a file's format, by its first 16 bytes; None for formats that are never opened."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[:1] == b"P" and head[1:2] in b"123456Ff" and head[2:3].isspace():
        return "PPM"
    return None


def read_header(file: BinaryIO) -> Header:
    """Look at a file that was opened for reading bytes.

    Raises:
        Exception: of any kind, where the tags of a TIFF are damaged.
    """
    file.seek(0)
    head = file.read(4096)
    name = file_format(head)
    if name == "JPEG2000":  # boxes with coordinates may stand before the codestream
        head += file.read(1 << 18)
    if name == "PNG":
        return _png_header(head)
    if name == "TIFF":
        return _tiff_header(file, head)
    if name == "JPEG2000":
        return _jpeg2000_header(head)
    if name == "GIF":
        return Header(name, PILLOW, "a GIF, whose transparent colour OpenCV replaces")
    if name == "AVIF":
        return Header(name, PILLOW, "an AVIF, which OpenCV does not turn") if _turned_avif(head) else Header(name)
    if name == "HEIF":
        return Header(name, PILLOW, "a HEIC, which OpenCV does not read")
    if name == "PPM":
        return _ppm_header(head)
    return Header(name)


def _png_header(head: bytes) -> Header:
    """16 bits are read at all bits; the chunk sBIT says how many of them were in use."""
    if head[24:25] != b"\x10":
        return Header("PNG")
    depth = None
    # Chunks that describe the picture stand before its data, in which the same four letters may occur.
    description = head.partition(b"IDAT")[0]
    chunk = description.find(b"sBIT")
    if chunk > 0:
        (length,) = struct.unpack(">I", description[chunk - 4 : chunk])
        depth = max(description[chunk + 4 : chunk + 4 + min(length, 3)], default=16)
    return Header("PNG", DEEP, "16 bits", depth=depth if depth in range(8, 16) else None)


def _ppm_header(head: bytes) -> Header:
    """PNM states its largest level, which OpenCV leaves out of account."""
    if head[1:2] in b"Ff14":
        return Header("PPM", PILLOW, "floats") if head[1:2] in b"Ff" else Header("PPM")
    match = _PNM_HEADER.match(head)
    largest = int(match[3]) if match else 255
    if largest == 255:
        return Header("PPM")
    if largest == 65535:
        return Header("PPM", DEEP, "16 bits")
    return Header("PPM", PILLOW, f"levels up to {largest}, which OpenCV leaves out of account")


def _turned_avif(head: bytes) -> bool:
    """Whether the file's properties turn or mirror the picture."""
    return b"irot" in head or b"imir" in head


def _jpeg2000_header(head: bytes) -> Header:
    """OpenCV reads colours where the file says that they are sRGB, and grey; what has no such word goes to GDAL."""
    colour_space = None
    # A box "colr" of method 1 has the number of a colour space; of method 2, a profile, which says nothing here.
    box = head.find(b"colr")
    if box > 0 and head[box + 4 : box + 5] == b"\x01":
        (colour_space,) = struct.unpack(">I", head[box + 7 : box + 11])
    # The codestream begins with the markers SOC and SIZ; size, bands and bits stand at fixed places behind them.
    start = head.find(b"\xff\x4f\xff\x51")
    if start < 0:
        return Header("JPEG2000", RASTERIO, "a JPEG 2000 whose codestream lies far behind its header")
    right, bottom, left_edge, top_edge = struct.unpack(">IIII", head[start + 8 : start + 24])
    size = (right - left_edge, bottom - top_edge)
    (bands,) = struct.unpack(">H", head[start + 40 : start + 42])
    depth = (head[start + 42] & 0x7F) + 1
    stated = depth if 8 < depth < 16 else None
    if (colour_space, bands, depth) == (_SYCC, 3, 8):
        return Header("JPEG2000", PILLOW, "JPEG 2000 in YCbCr", size)
    if (colour_space, bands) in ((_SRGB, 3), (_GREY, 1)) and depth in (8, 16):
        return Header("JPEG2000", OPENCV if depth == 8 else DEEP, "JPEG 2000", size)
    return Header("JPEG2000", RASTERIO, f"a JPEG 2000 of {bands} band(s) and {depth} bits", size, stated)


def tiff_tags(file: BinaryIO, head: bytes) -> Mapping[int, Any]:
    """The tags of a TIFF's first picture."""
    # BigTIFF has a plus sign for a star, and offsets of eight bytes.
    is_big = b"+" in head[2:4]
    directory = ImageFileDirectory_v2(head[:16] if is_big else head[:8])
    file.seek(directory.next)
    directory.load(file)
    return directory


def _tiff_header(file: BinaryIO, head: bytes) -> Header:
    tags = tiff_tags(file, head)
    bits = _numbers(tags.get(_BITS, 1))
    compression = tags.get(_COMPRESSION, 1)
    size = (int(tags.get(_WIDTH, 0)), int(tags.get(_HEIGHT, 0)))
    orientation = tags.get(_ORIENTATION, 1)
    decoder, reason = _tiff_decoder(tags, bits, orientation)
    if decoder == ALIKE and compression in _PILLOW_COMPRESSIONS:
        decoder, reason = PILLOW, f"compression {compression}, which OpenCV lacks"
    elif compression not in _COMMON_COMPRESSIONS and decoder != PILLOW:
        decoder, reason = RASTERIO, f"compression {compression}"
    return Header(
        "TIFF",
        decoder,
        reason,
        size,
        depth=_tiff_depth(tags, bits),
        orientation=orientation if orientation in range(1, 9) else 1,
        photometric=tags.get(_PHOTOMETRIC),
        georeferenced=any(tag in tags for tag in (_PIXEL_SCALE, _TIE_POINTS, _MATRIX, _GEO_KEYS)),
    )


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _tiff_depth(tags: Mapping[int, Any], bits: tuple[int, ...]) -> int | None:
    """Bits that a sample uses where they are fewer than 8 or 16: its own number, or the largest level stated."""
    if len(set(bits)) != 1 or _numbers(tags.get(_FORMAT, _UNSIGNED))[0] != _UNSIGNED:
        return None
    depth = bits[0]
    # Cameras of 10, 12 and 14 bits state the largest level that they can reach.
    largest = max(_numbers(tags.get(_MAX_SAMPLE, 0)))
    if depth == 16 and 255 <= largest < 32768:
        depth = int(largest).bit_length()
    return None if depth in (8, 16, 32, 64) else depth


def _tiff_decoder(tags: Mapping[int, Any], bits: tuple[int, ...], orientation: int) -> tuple[str, str]:
    """The decoder of a TIFF and why; rows are in the order of a reader's questions."""
    samples = tags.get(_SAMPLES, 1)
    photometric = tags.get(_PHOTOMETRIC)
    extra = _numbers(tags.get(_EXTRA, ()))
    separate = samples > 1 and tags.get(_PLANAR, 1) == 2
    turned = orientation in (5, 6, 7, 8)
    if set(_numbers(tags.get(_FORMAT, _UNSIGNED))) != {_UNSIGNED}:
        return RASTERIO, "signed or float levels"
    if set(bits) == {8}:
        return _decoder_of_bytes(photometric, samples, extra, separate, turned, tags.get(_COMPRESSION, 1))
    if set(bits) == {16}:
        has_colour_tags = (photometric, samples) in ((BLACK_IS_ZERO, 1), (RGB, 3), (RGB, 4))
        # In planes, OpenCV takes the levels of neighbouring pixels for red, green and blue.
        if has_colour_tags and not separate:
            return DEEP, "16 bits"
        return RASTERIO, f"{samples} band(s) of 16 bits"
    if set(bits) == {1} and samples == 1 and not turned:
        return ALIKE, ""
    if photometric == PALETTE and samples == 1 and set(bits) <= {1, 2, 4}:
        return PILLOW, f"a palette of {bits[0]} bits"
    return RASTERIO, f"{samples} band(s) of {bits[0]} bits"


def _decoder_of_bytes(
    photometric: int | None,
    samples: int,
    extra: tuple[int, ...],
    separate: bool,
    turned: bool,
    compression: int,
) -> tuple[str, str]:
    """The decoder of a TIFF of 8 bits per sample."""
    grey = photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE) and samples == 1
    if grey or (photometric, samples) == (RGB, 3):
        return (OPENCV, "turned") if turned else (ALIKE, "")
    if (photometric, samples) == (RGB, 4):
        if separate or turned:
            return RASTERIO, "four bands, turned or in planes"
        is_alpha = extra[:1] in ((_ASSOCIATED_ALPHA,), (_UNASSOCIATED_ALPHA,))
        # GDAL calls the fourth band of 8 bits alpha, also where it is near infrared.
        return (PILLOW, "a fourth band, by which OpenCV multiplies colours") if is_alpha else (ALIKE, "")
    if (photometric, samples) == (CMYK, 4) and not (separate or turned):
        return ALIKE, ""
    if (photometric, samples) == (YCBCR, 3):
        return (ALIKE, "") if compression == _JPEG_COMPRESSION and not turned else (OPENCV, "YCbCr")
    if (
        photometric == BLACK_IS_ZERO
        and samples == 2
        and extra[:1] == (_UNASSOCIATED_ALPHA,)
        and not (separate or turned)
    ):
        return PILLOW, "grey with alpha"
    return RASTERIO, f"{samples} bands"

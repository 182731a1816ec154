"""What the first bytes and the tags of a picture say, and by which decoder it is therefore read.

OpenCV (MMSegmentation's evaluations) and Pillow (everything else) read most files alike, bit for bit. The others are
listed here: for each of them one decoder is chosen, by what the file's own tags say, and used everywhere.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from clearclip.rasters.tiff_tags import (
    BLACK_IS_ZERO,
    CMYK,
    JPEG_COMPRESSION,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    TiffDescription,
    tiff_tags,
)

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

# Compressions of TIFF: none, fax, LZW, JPEG, deflate and packbits, which all decoders have; LZMA and Zstandard, which
# OpenCV lacks.
_COMMON_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}
_PILLOW_COMPRESSIONS = {34925, 50000}


@dataclass(frozen=True)
class Header:
    """What is known of a picture before it is decoded.

    Attributes:
        format: Pillow's name of it, or None for other files.
        decoder: one of the constants of this module.
        reason: why it is not the usual one; empty otherwise.
        size: width and height where a TIFF or JPEG 2000 states them.
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
    if name == "AVIF" and _is_turned_avif(head):
        return Header(name, PILLOW, "an AVIF, which OpenCV does not turn")
    if name == "HEIF":
        return Header(name, PILLOW, "a HEIC, which OpenCV does not read")
    if name == "PPM":
        return _ppm_header(head)
    return Header(name)


def _png_header(head: bytes) -> Header:
    """16 bits are read at all bits; the chunk sBIT says how many of them were in use."""
    if head[24:25] != b"\x10":
        return Header("PNG")
    # Chunks that describe the picture stand before its data, in which the same four letters may occur.
    description = head.partition(b"IDAT")[0]
    chunk = description.find(b"sBIT")
    significant_bits = 16
    if chunk > 0:
        (length,) = struct.unpack(">I", description[chunk - 4 : chunk])
        # One number each for red, green and blue; that of a fourth channel, opacity, says nothing about colours.
        significant_bits = max(description[chunk + 4 : chunk + 4 + min(length, 3)], default=16)
    if significant_bits in range(8, 16):
        return Header("PNG", DEEP, "16 bits", depth=significant_bits)
    return Header("PNG", DEEP, "16 bits")


def _ppm_header(head: bytes) -> Header:
    """PNM states its largest level, which OpenCV leaves out of account."""
    variant = head[1:2]
    if variant in b"Ff":
        return Header("PPM", PILLOW, "floats")
    if variant in b"14":  # of black and white, without levels
        return Header("PPM")
    match = _PNM_HEADER.match(head)
    if match is None:  # the decoder says what is wrong with it
        return Header("PPM")
    largest = int(match[3])
    if largest == 255:
        return Header("PPM")
    if largest == 65535:
        return Header("PPM", DEEP, "16 bits")
    return Header("PPM", PILLOW, f"levels up to {largest}, which OpenCV leaves out of account")


def _is_turned_avif(head: bytes) -> bool:
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
    # The highest bit says whether levels have a sign.
    depth = (head[start + 42] & 0x7F) + 1
    if (colour_space, bands, depth) == (_SYCC, 3, 8):
        return Header("JPEG2000", PILLOW, "JPEG 2000 in YCbCr", size)
    has_known_colours = (colour_space, bands) in ((_SRGB, 3), (_GREY, 1))
    if has_known_colours and depth == 8:
        return Header("JPEG2000", OPENCV, "JPEG 2000", size)
    if has_known_colours and depth == 16:
        return Header("JPEG2000", DEEP, "JPEG 2000", size)
    reason = f"a JPEG 2000 of {bands} band(s) and {depth} bits"
    if 8 < depth < 16:
        return Header("JPEG2000", RASTERIO, reason, size, depth)
    return Header("JPEG2000", RASTERIO, reason, size)


class _Decoder(NamedTuple):
    """Which decoder reads a file as its tags say, and why it is not the usual one."""

    name: str
    reason: str = ""


def _tiff_header(file: BinaryIO, head: bytes) -> Header:
    description = TiffDescription(tiff_tags(file, head))
    decoder = _tiff_decoder(description)
    orientation = description.orientation
    if orientation not in range(1, 9):  # a damaged tag turns nothing
        orientation = 1
    return Header(
        "TIFF",
        decoder.name,
        decoder.reason,
        description.size,
        depth=description.depth,
        orientation=orientation,
        photometric=description.photometric,
        georeferenced=description.is_georeferenced,
    )


def _tiff_decoder(description: TiffDescription) -> _Decoder:
    """The decoder of a TIFF, by its bands and by its compression."""
    decoder = _decoder_of_bands(description)
    compression = description.compression
    if decoder.name == ALIKE and compression in _PILLOW_COMPRESSIONS:
        return _Decoder(PILLOW, f"compression {compression}, which OpenCV lacks")
    if compression not in _COMMON_COMPRESSIONS and decoder.name != PILLOW:
        return _Decoder(RASTERIO, f"compression {compression}")
    return decoder


def _decoder_of_bands(description: TiffDescription) -> _Decoder:
    """The decoder of a TIFF whose compression all decoders have."""
    bits = set(description.bits)
    samples = description.samples
    if not description.is_unsigned:
        return _Decoder(RASTERIO, "signed or float levels")
    if bits == {8}:
        return _decoder_of_8_bits(description)
    if bits == {16}:
        return _decoder_of_16_bits(description)
    if bits == {1} and samples == 1 and not description.is_transposed:
        return _Decoder(ALIKE)
    if description.photometric == PALETTE and samples == 1 and bits <= {1, 2, 4}:
        return _Decoder(PILLOW, f"a palette of {description.bits[0]} bits")
    return _Decoder(RASTERIO, f"{samples} band(s) of {description.bits[0]} bits")


def _decoder_of_16_bits(description: TiffDescription) -> _Decoder:
    colours = (description.photometric, description.samples)
    has_colour_tags = colours in ((BLACK_IS_ZERO, 1), (RGB, 3), (RGB, 4))
    # In planes, OpenCV takes the levels of neighbouring pixels for red, green and blue.
    if has_colour_tags and not description.has_planes:
        return _Decoder(DEEP, "16 bits")
    return _Decoder(RASTERIO, f"{description.samples} band(s) of 16 bits")


def _decoder_of_8_bits(description: TiffDescription) -> _Decoder:
    photometric, samples = description.photometric, description.samples
    is_transposed = description.is_transposed
    is_unusual = description.has_planes or is_transposed
    is_grey = photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE) and samples == 1
    if is_grey or (photometric, samples) == (RGB, 3):
        if is_transposed:
            return _Decoder(OPENCV, "turned")
        return _Decoder(ALIKE)
    if (photometric, samples) == (RGB, 4):
        return _decoder_of_four_bands(description)
    if (photometric, samples) == (CMYK, 4) and not is_unusual:
        return _Decoder(ALIKE)
    if (photometric, samples) == (YCBCR, 3):
        if description.compression == JPEG_COMPRESSION and not is_transposed:
            return _Decoder(ALIKE)
        return _Decoder(OPENCV, "YCbCr")
    if description.is_grey_with_alpha and not is_unusual:
        return _Decoder(PILLOW, "grey with alpha")
    return _Decoder(RASTERIO, f"{samples} bands")


def _decoder_of_four_bands(description: TiffDescription) -> _Decoder:
    """Red, green, blue and one more of 8 bits. GDAL calls it alpha, also where it is near infrared."""
    if description.has_planes or description.is_transposed:
        return _Decoder(RASTERIO, "four bands, turned or in planes")
    if description.has_alpha:
        return _Decoder(PILLOW, "a fourth band, by which OpenCV multiplies colours")
    return _Decoder(ALIKE)

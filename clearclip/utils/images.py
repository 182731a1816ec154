"""Pictures as people have them: any mode and kind in, (H, W, 3) uint8 RGB out. All that reads a picture asks here.

==================  =========================================================================================
colours             red, green, blue; a grey band three times; a palette's colours; CMYK as OpenCV converts it
bands               those that the file's tags call red, green and blue; else three bands in their order; else the
                    user names them
transparency        ignored: what it hides is seen, in the colours that are stored (premultiplied ones divided again)
bit depth           :func:`clearclip.rasters.levels.to_bytes`
orientation         as EXIF, TIFF and AVIF say
animations, pages   the first
==================  =========================================================================================

Most files are read alike by OpenCV and Pillow. For the others, :mod:`clearclip.rasters.headers` says which of the two,
or rasterio, reads what the file's tags say; MMSegmentation's evaluations then take this reader, too.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clearclip.rasters.headers import ALIKE, DEEP, OPENCV, RASTERIO, Header, read_header
from clearclip.rasters.levels import Levels, PictureWarning, check_levels, to_bytes
from clearclip.rasters.reader import DRIVERS, RasterReader, check_bands, import_rasterio, open_raster
from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray"

#: What may be opened, decided by content, whatever the file's name says. All are decoded in this process; others may
#: start a program (EPS: Ghostscript) and are never tried.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000")
UNKNOWN_FORMAT = f"it is no image of a known kind ({', '.join(FORMATS)}); convert it to PNG or JPEG"
#: Larger images are refused; the environment variable CLEARCLIP_MAX_PIXELS takes another number.
MAX_PIXELS = 50_000_000
_HEIF_REMEDY = "it is a HEIC picture, which needs pillow-heif; install it: pip install pillow-heif"


def pixel_limit() -> int:
    """So many pixels may a picture have that is decoded as a whole.

    Raises:
        UserError: the environment variable is no number.
    """
    limit = os.environ.get("CLEARCLIP_MAX_PIXELS", str(MAX_PIXELS))
    if not limit.isdecimal():
        raise UserError(f"CLEARCLIP_MAX_PIXELS must be a whole number, not {limit!r}")
    return int(limit)


def check_file(path: Path) -> None:
    """Raise a UserError where there is no such file."""
    name = str(path)[:400]
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as error:  # a name that is too long, or that has a null byte
        raise UserError(f"image {name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if path.is_dir():
        raise UserError(f"{name} is a folder, not an image")
    if not is_file:
        raise UserError(f"image {name} does not exist")


@contextmanager
def image_errors(name: str) -> Iterator[None]:
    """Every fault in opening and decoding a picture becomes one kind of error."""
    try:
        yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(_too_large(name)) from error
    except UnidentifiedImageError as error:
        raise UserError(f"image {name} cannot be read: {UNKNOWN_FORMAT}") from error
    except Exception as error:  # decoders raise all sorts of errors on damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"image {name} cannot be read: {reason}") from error


def _too_large(name: str) -> str:
    return (
        f"image {name} has more than {pixel_limit():,} pixels; make it smaller, or set the environment variable "
        "CLEARCLIP_MAX_PIXELS to a larger number"
    )


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image file, opened by Pillow. For strangers' files, too.

    Raises:
        UserError: it is missing, damaged, of no known kind (see :data:`FORMATS`) or too large.
    """
    path = user_path(path)
    name = str(path)[:400]
    check_file(path)
    with image_errors(name), path.open("rb") as file, _open_with_pillow(file, name) as image:
        yield image


@contextmanager
def _open_with_pillow(file: BinaryIO, name: str) -> Iterator[Image.Image]:
    """A file that Pillow reads by one of the formats that are allowed."""
    limit = pixel_limit()
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:  # the user asked for it
        Image.MAX_IMAGE_PIXELS = limit
    Image.init()
    file.seek(0)
    # Without such a list Pillow tries all of its formats, among them those that start a program.
    available_formats = [name for name in (*FORMATS, "HEIF") if name in Image.OPEN]
    with Image.open(file, formats=available_formats) as image:
        if image.width * image.height > limit:
            raise UserError(_too_large(name))
        yield image


def read_image(
    image: ImageLike, bands: Sequence[int] | None = None, levels: Levels | Sequence[float] | None = None
) -> np.ndarray:
    """Read a picture of any kind, by the rules at the head of this module.

        read_image("satellite.tif", bands=(4, 3, 2), levels=(0, 4095))

    Args:
        image: a path, a PIL image, or an RGB array, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or uint16.
        bands: of a TIFF or JPEG 2000: which are red, green and blue, counted from 1; or one, for grey.
        levels: the levels that become 0 and 255, or "percentiles".

    Returns:
        (H, W, 3) uint8 RGB

    Raises:
        UserError: it is missing, damaged, too large, of no such shape, or nothing says what its bands or levels mean.
    """
    bands, levels = check_bands(bands), check_levels(levels)
    if isinstance(image, np.ndarray):
        return _from_array(image, levels)
    if isinstance(image, Image.Image):
        return _from_pillow(image, levels)
    if not isinstance(image, str | os.PathLike):
        raise UserError(f"an image must be a path, a PIL image or an array, not {type(image).__name__}")
    path = user_path(image)
    check_file(path)
    name = str(path)[:400]
    with image_errors(name), path.open("rb") as file:
        return _decode(file, path, name, bands, levels)


def decode_image(
    data: bytes,
    name: str,
    bands: tuple[int, int, int] | None = None,
    levels: Levels | None = None,
    turn: bool = True,
) -> np.ndarray:
    """:func:`read_image` of a file's bytes.

    Args:
        data: of the file.
        name: of the file, for what is said about it.
        bands, levels: as :func:`check_bands` and :func:`check_levels` return them.
        turn: whether its orientation is followed.
    """
    with image_errors(name), io.BytesIO(data) as file:
        return _decode(file, None, name, bands, levels, turn)


def picture_header(file: BinaryIO) -> Header:
    """What a picture's tags say. For a damaged TIFF that it is one."""
    try:
        return read_header(file)
    except Exception:  # the decoder will say what is wrong with it
        file.seek(0)
        return Header("TIFF")


def _decode(
    file: BinaryIO,
    path: Path | None,
    name: str,
    bands: tuple[int, int, int] | None,
    levels: Levels | None,
    turn: bool = True,
) -> np.ndarray:
    header = picture_header(file)
    if header.size is not None and header.size[0] * header.size[1] > pixel_limit():
        raise UserError(_too_large(name))
    is_raster = header.format in DRIVERS
    if bands is not None and not is_raster:
        raise UserError(f"bands are chosen of TIFF and JPEG 2000 only, and {name} is {header.format or 'neither'}")
    # Only rasterio gives any bands, and levels as they are stored.
    is_asked_for = is_raster and (bands is not None or levels is not None)
    if header.decoder == RASTERIO or is_asked_for:
        return _decode_by_rasterio(file, path, header, name, bands, levels, turn)
    if header.format == "HEIF":
        _allow_heif()
    if header.decoder in (OPENCV, DEEP):
        picture = _decode_by_opencv(file, header, name, levels, turn)
        if picture is not None:
            return picture
    with _open_with_pillow(file, name) as image:
        if header.decoder == ALIKE and header.format == "JPEG" and image.mode == "CMYK":
            # Pillow converts CMYK to other colours than OpenCV, by which the published numbers were computed.
            converted = _decode_by_opencv(file, header, name, levels, turn)
            image.load()  # says what is wrong with a damaged file
            if converted is not None:
                return converted
        return _from_pillow(image, levels, name, turn)


def _allow_heif() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(_HEIF_REMEDY) from error
    pillow_heif.register_heif_opener()


def _decode_by_opencv(
    file: BinaryIO, header: Header, name: str, levels: Levels | None, turn: bool
) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB at all bits that the file has, or None where OpenCV cannot decode it."""
    with _open_if_pillow_can(file, name):
        pass  # its size is within the limit
    file.seek(0)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if not turn:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(np.frombuffer(file.read(), np.uint8), flags)
    if picture is None:
        return None
    if not turn and header.format == "TIFF":  # which OpenCV turns whatever the flag says
        # Back: quarter turns undo each other, all other orientations undo themselves.
        inverse = {6: 8, 8: 6}.get(header.orientation, header.orientation)
        picture = turned(picture, inverse)
    return to_bytes(np.ascontiguousarray(picture[..., ::-1]), levels, header.depth, name)


@contextmanager
def _open_if_pillow_can(file: BinaryIO, name: str) -> Iterator[None]:
    try:
        with _open_with_pillow(file, name):
            yield
    except UnidentifiedImageError:  # a mode that it lacks; the tags have said the size
        yield


def _decode_by_rasterio(
    file: BinaryIO,
    path: Path | None,
    header: Header,
    name: str,
    bands: tuple[int, int, int] | None,
    levels: Levels | None,
    turn: bool,
) -> np.ndarray:
    """What neither OpenCV nor Pillow reads as its tags say."""
    with _gdal_name(file, path) as gdal_name, open_raster(gdal_name, header) as dataset:
        reader = RasterReader(dataset, header, name, bands, levels)
        for remark in reader.remarks:
            warnings.warn(remark, PictureWarning, stacklevel=2)
        picture = reader.read()
    if not turn:
        return picture
    return turned(picture, header.orientation)


@contextmanager
def _gdal_name(file: BinaryIO, path: Path | None) -> Iterator[str | Path]:
    """What GDAL calls a file: its path, or a name for its bytes in memory."""
    if path is not None:
        yield path
        return
    file.seek(0)
    memory_file = import_rasterio("this image").io.MemoryFile
    with memory_file(file.read()) as memory:
        yield memory.name


def turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """A picture as its orientation, 1 to 8 as in EXIF, wants it to be seen."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _from_pillow(
    image: Image.Image, levels: Levels | None = None, name: str = "an image", turn: bool = True
) -> np.ndarray:
    """A picture of Pillow's, of any mode."""
    if turn:
        image = ImageOps.exif_transpose(image)
    else:
        image = image.copy()
    if image.mode == "F":
        return _from_array(to_bytes(np.asarray(image), levels, name=name))
    if image.mode.startswith("I"):
        return _from_array(_from_integers(np.asarray(image), levels, name))
    # It is ignored; Pillow would warn that the conversion loses it.
    image.info.pop("transparency", None)
    if image.mode in ("RGBa", "La"):  # colours that were multiplied by their opacity
        image = image.convert(image.mode.upper())
    return to_bytes(np.array(image.convert("RGB")), levels, name=name)  # a copy: PIL's own memory is read-only


def _from_integers(values: np.ndarray, levels: Levels | None, name: str) -> np.ndarray:
    """Pillow's wider modes hold 8 bits or 16."""
    if levels is None and values.dtype != np.uint16:
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        if low >= 0 and high < 256:
            values = values.astype(np.uint8)
        elif low >= 0 and high <= 65535:
            values = values.astype(np.uint16)
    return to_bytes(values, levels, name=name)


def _from_array(array: np.ndarray, levels: Levels | None = None) -> np.ndarray:
    """An array of one, three or four channels; the fourth, opacity, is left out."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(f"an image array must be (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    if levels is None and array.dtype not in (np.uint8, np.uint16):
        raise UserError(f"an image array must be uint8, 0 to 255 (or uint16, 0 to 65535), not {array.dtype}")
    array = to_bytes(array[:, :, :3], levels)
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)), order="C")


def resize_to_protocol(image: np.ndarray, short_side: int | None = 448, long_side: int = 2048) -> np.ndarray:
    """Resize as the benchmarks do: aspect kept, short side to ``short_side``, long side at most ``long_side``.

    Args:
        image: (H, W, 3) uint8.
        short_side: in pixels; None keeps the size.
    """
    if short_side is None:
        return image
    height, width = protocol_size(image.shape[:2], short_side, long_side)
    # OpenCV's bilinear resize, as the benchmarks' pipeline uses it.
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def protocol_size(size: tuple[int, ...], short_side: int | None, long_side: int) -> tuple[int, int]:
    """The height and width that :func:`resize_to_protocol` gives an image of height and width ``size``."""
    height, width = size
    if short_side is None:
        return height, width
    scale = min(long_side / max(height, width), short_side / min(height, width))
    # MMSegmentation's rounding.
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

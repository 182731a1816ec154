"""Images as people have them: any mode and kind in, (H, W, 3) uint8 RGB out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray"

#: What may be opened, decided by content, whatever the file's name says. All are decoded in this process; others may
#: start a program (EPS: Ghostscript) and are never tried.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF")
#: Larger images are refused; the environment variable CLEARCLIP_MAX_PIXELS takes another number.
MAX_PIXELS = 50_000_000


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image file, opened; every fault in opening and decoding it is one kind of error. For strangers' files, too.

    Raises:
        UserError: it is missing, damaged, of no known kind (see :data:`FORMATS`) or too large.
    """
    path, limit = user_path(path), os.environ.get("CLEARCLIP_MAX_PIXELS", str(MAX_PIXELS))
    if not limit.isdecimal():
        raise UserError(f"CLEARCLIP_MAX_PIXELS must be a whole number, not {limit!r}")
    pixels = int(limit)
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:  # the user asked for it
        Image.MAX_IMAGE_PIXELS = pixels
    Image.init()
    too_large = (
        f"image {path} has more than {pixels:,} pixels; make it smaller, or set the environment variable "
        "CLEARCLIP_MAX_PIXELS to a larger number"
    )
    try:
        if not path.is_file():
            name = str(path)[:400]
            raise UserError(f"{name} is a folder, not an image" if path.is_dir() else f"image {name} does not exist")
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            if image.width * image.height > pixels:
                raise UserError(too_large)
            yield image
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(too_large) from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise UserError(f"image {path} cannot be read: it is no image of a known kind ({kinds})") from error
    except Exception as error:  # decoders raise all sorts of errors on damaged files
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(f"image {str(path)[:400]} cannot be read: {reason}") from error


def read_image(image: ImageLike) -> np.ndarray:
    """Read an image of any kind: grey, palette, 16-bit, CMYK, EXIF-rotated, animated (first frame).

    Transparency is ignored, as in MMSegmentation's evaluations: what it hides is seen.

    Args:
        image: a path, a PIL image, or an RGB array, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or uint16.

    Returns:
        (H, W, 3) uint8 RGB

    Raises:
        UserError: it is missing, damaged, too large or of no such shape.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    if not isinstance(image, str | os.PathLike):
        raise UserError(f"an image must be a path, a PIL image or an array, not {type(image).__name__}")
    with open_image(image) as opened:
        return _to_rgb(opened, str(image))


def _to_rgb(image: Image.Image, name: str = "an image") -> np.ndarray:
    image = ImageOps.exif_transpose(image)  # a copy
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(_to_uint8(np.asarray(image), name))
    image.info.pop("transparency", None)
    if image.mode in ("RGBa", "La"):  # colours that were multiplied by their opacity
        image = image.convert(image.mode.upper())
    return np.array(image.convert("RGB"))  # a copy: PIL's own memory is read-only


def _to_uint8(values: np.ndarray, name: str = "an image array") -> np.ndarray:
    """16-bit levels and float levels in 0..1 to 8 bits; wider types may hold 8-bit levels, which stay."""
    if values.dtype == np.uint8:
        return values
    values = np.nan_to_num(values)
    largest = values.max(initial=0)
    if values.dtype == np.uint16 or largest > 255:
        if 0 < largest < 4096:
            warnings.warn(
                f"{name} has 16 bits but no level above {largest}, so it is nearly black; if it holds 12-bit levels, "
                "multiply them by 16",
                stacklevel=4,
            )
        factor = 1 / 257
    else:
        factor = 255 if values.dtype.kind == "f" and largest <= 1 else 1
    return np.clip(values * factor, 0, 255).round().astype(np.uint8)


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(f"an image array must be (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    if array.dtype not in (np.uint8, np.uint16):
        raise UserError(f"an image array must be uint8, 0 to 255 (or uint16, 0 to 65535), not {array.dtype}")
    array = _to_uint8(array[:, :, :3])
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)), order="C")


def resize_to_protocol(image: np.ndarray, short_side: int | None = 448, long_side: int = 2048) -> np.ndarray:
    """Resize as the benchmarks do: aspect kept, short side to ``short_side``, long side at most ``long_side``.

    Args:
        image: (H, W, 3) uint8.
        short_side: in pixels; None keeps the size.
    """
    if short_side is None:
        return image
    height, width = image.shape[:2]
    scale = min(long_side / max(height, width), short_side / min(height, width))
    # MMSegmentation's rounding and OpenCV's bilinear resize, as the benchmarks' pipeline uses them.
    size = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)

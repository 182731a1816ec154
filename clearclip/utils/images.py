"""Images as people have them: any mode and kind in, (H, W, 3) uint8 RGB out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clearclip.utils.errors import UserError

ImageLike: TypeAlias = "str | os.PathLike | Image.Image | np.ndarray"

UNKNOWN = "it is no image of a known kind (JPEG, PNG, WebP, TIFF, GIF, BMP, …)"


def read_image(image: ImageLike) -> np.ndarray:
    """Read an image of any kind: grey, palette, alpha (on white), 16-bit, CMYK, EXIF-rotated, animated (first frame).

    Args:
        image: a path, a PIL image, or an (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) array, uint8 or uint16.

    Returns:
        (H, W, 3) uint8 RGB

    Raises:
        UserError: it is missing, damaged or of no such shape.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    if not isinstance(image, str | os.PathLike):
        raise UserError(f"an image must be a path, a PIL image or an array, not {type(image).__name__}")
    path = Path(image)
    try:
        with Image.open(path) as opened:
            return _to_rgb(opened)
    except FileNotFoundError as error:
        raise UserError(f"image {path} does not exist") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder, not an image") from error
    except UnidentifiedImageError as error:
        raise UserError(f"image {path} cannot be read: {UNKNOWN}") from error
    except Exception as error:  # decoders raise all sorts of errors on damaged files
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(f"image {path} cannot be read: {reason}") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(_to_uint8(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))  # a copy: PIL's own memory is read-only


def _to_uint8(values: np.ndarray) -> np.ndarray:
    """16-bit levels and float levels in 0..1 to 8 bits; wider types may hold 8-bit levels, which stay."""
    if values.dtype == np.uint8:
        return values
    values = np.nan_to_num(values)
    if values.dtype == np.uint16 or values.max(initial=0) > 255:
        factor = 1 / 257
    else:
        factor = 255 if values.dtype.kind == "f" and values.max(initial=0) <= 1 else 1
    return np.clip(values * factor, 0, 255).round().astype(np.uint8)


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(f"an image array must be (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    if array.dtype not in (np.uint8, np.uint16):
        raise UserError(f"an image array must be uint8, 0 to 255 (or uint16, 0 to 65535), not {array.dtype}")
    array = _to_uint8(array)
    if array.shape[2] == 4:
        return _to_rgb(Image.fromarray(array))
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

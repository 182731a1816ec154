"""Pictures on disk: whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from clearclip.utils.errors import UserError
from clearclip.utils.files import write_bytes


def save_image(image: Image.Image | np.ndarray, path: str | Path) -> Path:
    """Write an image; the suffix says the format.

    Args:
        image: a PIL image, or a uint8 array (uint16 for PNG label maps).
        path: where to; folders are made.

    Returns:
        the path.

    Raises:
        UserError: an unknown suffix, an image too large for the format, or a place that cannot be written.
    """
    path = Path(path)
    format_name = Image.registered_extensions().get(path.suffix.lower())
    if format_name is None or format_name not in Image.SAVE:
        raise UserError(f"{path} has no suffix of an image format that can be written; use .png or .jpg")
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if format_name == "JPEG":
        image = image.convert("RGB")
    buffer = io.BytesIO()
    try:
        # Each format takes the option that it knows; PNG's own level is slow and saves a few per cent.
        image.save(buffer, format=format_name, quality=92, compress_level=4)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written as {format_name} ({error}); use .png") from error
    return write_bytes(path, buffer.getvalue())

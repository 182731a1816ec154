"""Pictures and label maps as files, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from clearclip.utils.errors import UserError
from clearclip.utils.files import write_bytes
from clearclip.visualize.page_layout import PageLayout

#: Suffixes of vector formats, and what Matplotlib calls them.
VECTOR_FORMATS = {".svg": "svg", ".pdf": "pdf"}


def save_image(image: Image.Image | np.ndarray | PageLayout, path: str | Path, lossless: bool = False) -> Path:
    """Write an image; the suffix says the format.

    Args:
        image: a PIL image; a uint8 array (uint16 for PNG label maps); or a page, which may be an SVG or PDF, too.
        path: where to; folders are made.
        lossless: refuse formats that may change a pixel.

    Returns:
        the path.

    Raises:
        UserError: an unknown or refused suffix, an image too large for the format, or a place that cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if isinstance(image, PageLayout):
        if suffix in VECTOR_FORMATS:
            return write_bytes(path, image.vector_bytes(VECTOR_FORMATS[suffix]))
        image = image.draw()
    format_name = Image.registered_extensions().get(suffix)
    if lossless and format_name not in ("PNG", "TIFF"):
        raise UserError(f"{path}: label maps need a format that keeps every value; use .png (or .tif)")
    if format_name is None or format_name not in Image.SAVE:
        raise UserError(f"{path} has no suffix of an image format that can be written; use .png or .jpg")
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if format_name == "JPEG":  # which has neither palettes nor opacity
        image = image.convert("RGB")
    # In memory first: a format that cannot hold the image leaves no file behind.
    buffer = io.BytesIO()
    try:
        # Each format takes the option that it knows; PNG's own level is slow and saves a few per cent.
        image.save(buffer, format=format_name, quality=92, compress_level=4)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written as {format_name} ({error}); use .png") from error
    return write_bytes(path, buffer.getvalue())


def palette_image(labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """A label map, (H, W) uint8, as a palette image: pixels are class ids, and viewers show them in ``colours``.

    Args:
        labels: class ids.
        colours: (K, 3) uint8, one for each class; ids beyond them are shown in white.
    """
    height, width = labels.shape
    image = Image.frombytes("P", (width, height), labels.astype(np.uint8).tobytes())
    # All 256 entries: some viewers show nothing where an id has none.
    missing_colours = 256 - len(colours)
    white = bytes([255, 255, 255])
    image.putpalette(colours.astype(np.uint8).tobytes() + missing_colours * white)
    return image

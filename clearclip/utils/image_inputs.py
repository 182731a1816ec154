"""What :meth:`clearclip.ClearCLIP.segment` takes for an image: files, their bytes, arrays and tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from clearclip.utils.errors import UserError
from clearclip.utils.images import decode_image, read_image

#: The beginning of an address. ``pathlib.Path`` makes one slash of two.
_ADDRESS = re.compile(r"(https?|ftp|s3|gs|data|blob):/?", re.IGNORECASE)
_FLOAT_REMEDY = "for values from 0 to 1: (255 * image).round() as uint8; a normalised image cannot be used"


@dataclass(frozen=True)
class ImageFailure:
    """An image that could not be read, in the place of its result where ``on_error="skip"``.

    Attributes:
        image: as it was given.
        error: why.
    """

    image: Any
    error: UserError


def is_one_image(image: Any) -> bool:
    """Whether it is an image, and not a sequence of images or an iterator over some.

    A tensor, bytes and a file can be iterated over as well; a mapping is neither.
    """
    # A mapping is refused as an image: as a sequence, its keys would be taken for paths.
    single_types = (str, os.PathLike, Image.Image, np.ndarray, bytes, bytearray, memoryview, Mapping)
    if isinstance(image, single_types) or hasattr(image, "read") or is_tensor(image):
        return True
    return not isinstance(image, Iterable)


def is_tensor(image: Any) -> bool:
    """Whether it is a PyTorch tensor, without PyTorch."""
    # By its name, since to import PyTorch would take a second where images are files.
    classes = type(image).__mro__
    return any(cls.__module__ == "torch" and cls.__name__ == "Tensor" for cls in classes)


def load_image(image: Any) -> np.ndarray:
    """An image of any kind as (H, W, 3) uint8 RGB.

    Args:
        image: what :func:`~clearclip.utils.images.read_image` takes; a file's bytes; a file object, opened for bytes;
            or a uint8 tensor, (3, H, W) or (H, W, 3), also with 1 or 4 channels.

    Raises:
        UserError: another kind of object, or an image that cannot be read; says what to do.
    """
    if isinstance(image, str | os.PathLike) and _ADDRESS.match(os.fspath(image)):
        address = os.fspath(image)[:200]
        raise UserError(f"{address!r} is an address; fetch it, and give its bytes: urllib.request.urlopen(url).read()")
    if hasattr(image, "read") and not isinstance(image, Image.Image):
        image = _file_bytes(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image), "from bytes")
    if is_tensor(image):
        image = _array_of_tensor(image)
    if isinstance(image, np.ndarray) and image.dtype.kind not in "u":
        raise UserError(f"an image array must be uint8, 0 to 255 (or uint16), not {image.dtype}; {_FLOAT_REMEDY}")
    if isinstance(image, np.ndarray) and image.ndim == 4:
        raise UserError(f"an array of {image.shape} is several images; give a list of them: list(images)")
    return read_image(image)


def _file_bytes(file: Any) -> bytes:
    """The bytes of a file object, from its beginning where it can be set back."""
    if getattr(file, "seekable", bool)():
        file.seek(0)
    data = file.read()
    if not isinstance(data, bytes):
        raise UserError('the file gives text in place of an image\'s bytes; open it with open(path, "rb")')
    return data


def _array_of_tensor(tensor: Any) -> np.ndarray:
    """A tensor as an array with its channels last."""
    if str(tensor.dtype) != "torch.uint8":
        raise UserError(f"an image tensor must be torch.uint8, 0 to 255, not {tensor.dtype}; {_FLOAT_REMEDY}")
    array = tensor.detach().cpu().numpy()
    # PyTorch has channels first. An image of 3 rows and 3 columns is taken as PyTorch has it.
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    return array


def read_batch(images: Iterator[Any], count: int) -> tuple[list[tuple[Any, Any]], Exception | None]:
    """The next images of an iterator.

    Args:
        images: of :func:`load_image`'s kinds.
        count: how many at most.

    Returns:
        Pairs of the image as it was given and its pixels, or an :class:`ImageFailure` in their place; and what the
        iterator itself raised: those before it are not lost.
    """
    batch: list[tuple[Any, Any]] = []
    try:
        for image in islice(images, count):
            try:
                batch.append((image, load_image(image)))
            except UserError as error:
                batch.append((image, ImageFailure(image, error)))
    except Exception as error:  # of the user's own iterator
        return batch, error
    return batch, None


def image_name(image: Any) -> str:
    """The name of an image's file, of a path or of an opened file; else empty."""
    if isinstance(image, str | os.PathLike):
        return os.path.basename(os.fspath(image))  # noqa: PTH119 (any text)
    name = getattr(image, "name", "") or getattr(image, "filename", "")
    # A file that was opened by its number has that number for a name.
    if not isinstance(name, str):
        return ""
    return os.path.basename(name)  # noqa: PTH119

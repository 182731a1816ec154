"""The images of an evaluation: by OpenCV as MMCV reads them, and by our reader where that misreads what a file says."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv import transforms
from mmengine import fileio
from mmseg.registry import TRANSFORMS

from clearclip.rasters.headers import ALIKE, OPENCV, Header, file_format
from clearclip.rasters.levels import Levels, check_levels
from clearclip.rasters.reader import check_bands
from clearclip.utils.errors import UserError
from clearclip.utils.images import FORMATS, UNKNOWN_FORMAT, decode_image, picture_header

#: MMCV's words for how an image is to be decoded, of which our reader knows these.
_COLOUR_TYPES = ("color", "color_ignore_orientation", "grayscale", "grayscale_ignore_orientation")


# By MMCV's name, which MMSegmentation's inference looks for and configs use; found before MMCV's in its registry.
@TRANSFORMS.register_module()
class LoadImageFromFile(transforms.LoadImageFromFile):
    """MMCV's ``LoadImageFromFile``, but for files that OpenCV and Pillow read differently.

    JPEG, PNG and TIFF of 8 bits and all else that both read alike are decoded by MMCV, bit for bit. What is left, such
    as TIFFs of four bands or of 16 bits, is decoded by :mod:`clearclip.utils.images`, as ``segment()`` does.

        dict(type="LoadImageFromFile", bands=(4, 3, 2), levels=(0, 4095))

    Args:
        *args, **kwargs: of MMCV's.
        bands: of a TIFF or JPEG 2000: which are red, green and blue, counted from 1.
        levels: the levels that become 0 and 255, or "percentiles" of each image.

    Raises:
        UserError: bands or levels that mean nothing; in use, a file of no known kind, or one of whose bands or levels
            nothing says what they mean.
    """

    def __init__(
        self,
        *args: Any,
        bands: Sequence[int] | None = None,
        levels: Levels | Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.bands = check_bands(bands)
        self.levels = check_levels(levels)

    def transform(self, results: dict) -> dict | None:
        """Read ``results["img_path"]``: adds ``img``, (H, W, 3) with blue first, ``img_shape`` and ``ori_shape``."""
        path = results["img_path"]
        try:
            image = self._decode(self._read_bytes(path), path)
        except Exception:
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            image = image.astype(np.float32)
        results["img"] = image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def _read_bytes(self, path: str) -> bytes:
        if self.file_client_args is not None:
            return fileio.FileClient.infer_client(self.file_client_args, path).get(path)
        return fileio.get(path, backend_args=self.backend_args)

    def _decode(self, data: bytes, path: str) -> np.ndarray:
        if file_format(data[:16]) not in (*FORMATS, "HEIF"):
            raise UserError(f"image {path} cannot be read: {UNKNOWN_FORMAT}")
        if self._by_mmcv(data):
            image = mmcv.imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
            if image is not None:
                return image
        return self._by_our_reader(data, path)

    def _by_mmcv(self, data: bytes) -> bool:
        if self.color_type not in _COLOUR_TYPES:
            return True
        if self.bands is not None or self.levels is not None:
            return False
        header = header_of(data)
        if self.imdecode_backend == "tifffile":  # it leaves red first, where MMCV's other decoders have blue
            return False
        return header.decoder == ALIKE or (header.decoder == OPENCV and self.imdecode_backend == "cv2")

    def _by_our_reader(self, data: bytes, path: str) -> np.ndarray:
        turn = not self.color_type.endswith("ignore_orientation")
        picture = decode_image(data, path, self.bands, self.levels, turn)
        if self.color_type.startswith("grayscale"):
            return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        return np.ascontiguousarray(picture[..., ::-1])

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, bands={self.bands}, levels={self.levels})"


def bundled_loader(step: transforms.LoadImageFromFile) -> LoadImageFromFile:
    """Our transform in the place of MMCV's, where a config names its class."""
    loader = LoadImageFromFile(step.to_float32, step.color_type, step.imdecode_backend, ignore_empty=step.ignore_empty)
    loader.backend_args = step.backend_args
    loader.file_client_args = step.file_client_args
    return loader


def header_of(data: bytes) -> Header:
    """What the tags in a file's bytes say."""
    # Most files are JPEGs and PNGs of 8 bits, which both decoders read alike.
    if data.startswith(b"\xff\xd8\xff"):
        return Header("JPEG")
    if data.startswith(b"\x89PNG") and data[24] <= 8:
        return Header("PNG")
    with io.BytesIO(data) as file:
        return picture_header(file)


def images_read_otherwise(paths: Iterable[str | Path]) -> dict[str, int]:
    """How many files are not read by OpenCV alone, by the reason: what their pixels depend on beside their bytes.

    A run's facts name it where there are any: its numbers follow our reader, not MMSegmentation's.

    Args:
        paths: local image files; others are left out.
    """
    with ThreadPoolExecutor() as pool:
        reasons = pool.map(_reason_for_our_reader, paths)
        counts = Counter(reason for reason in reasons if reason)
    return dict(sorted(counts.items()))


def _reason_for_our_reader(path: str | Path) -> str:
    try:
        with open(path, "rb") as file:
            header = picture_header(file)
    except OSError:
        return ""
    return "" if header.decoder in (ALIKE, OPENCV) else f"{header.format}: {header.reason}"

"""Ground truth: the ids that a mask file stores, and the labels that a dataset makes of them."""

from __future__ import annotations

import io
from functools import lru_cache

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from clearclip.rasters.headers import file_format
from clearclip.rasters.tiff_tags import WHITE_IS_ZERO, tiff_tags
from clearclip.utils.errors import UserError

#: What LoadAnnotations writes where nothing is to be counted.
VOID = 255
PREPARE = "prepare it as datasets/README.md says, or docs/your_own_data.md for data of your own"
#: Formats that keep every id. Pillow is told, since others may start a program, even from within a harmless file.
MASK_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
_LOSSY_FORMATS = ("JPEG", "WEBP", "AVIF", "HEIF", "JPEG2000")
#: By what decoders multiply grey levels of so few bits, to spread them over 0..255.
_GREY_FACTORS = {1: 255, 2: 85, 4: 17}
# Tags of TIFF, and the value for a palette.
_BITS, _PHOTOMETRIC, _ORIENTATION, _PALETTE = 258, 262, 274, 3


class LoadLabels(LoadAnnotations):
    """In the place of ``LoadAnnotations``, which keeps the low byte of each id and lets any id pass.

    What ``reduce_zero_label`` and the dataset's ``label_map`` take out gets the dataset's ``ignore_index``.

    Args:
        loader: the pipeline's own step.
        dataset: whose masks are read.

    Raises:
        UserError: the two disagree about ``reduce_zero_label``; in use, a mask that cannot be read or has other ids.
    """

    def __init__(self, loader: LoadAnnotations, dataset: BaseSegDataset):
        super().__init__(None, loader.backend_args, loader.imdecode_backend)
        if loader.reduce_zero_label not in (None, dataset.reduce_zero_label):
            raise UserError(
                f"LoadAnnotations has reduce_zero_label={loader.reduce_zero_label}, the dataset "
                f"{dataset.reduce_zero_label}; set it in the dataset only"
            )
        self.classes = len(dataset.metainfo["classes"])
        self.ignore_index = dataset.ignore_index
        self.mask_ids = getattr(dataset, "mask_ids", None)

    def _load_seg_map(self, results: dict) -> None:
        path = results["seg_map_path"]
        ids = self._read_ids(path)
        label_map = results.get("label_map")
        map_items = None if label_map is None else tuple(label_map.items())
        bits = 8 * ids.dtype.itemsize
        table, is_allowed = label_table(self.classes, self.ignore_index, results["reduce_zero_label"], map_items, bits)
        if not is_allowed[ids].all():
            raise UserError(f"mask {path} {self._unknown_ids(ids, is_allowed)}")
        results["gt_seg_map"] = table[ids]
        results["seg_fields"].append("gt_seg_map")

    def _read_ids(self, path: str) -> np.ndarray:
        try:
            ids = decode_mask(fileio.get(path, backend_args=self.backend_args), self.imdecode_backend)
        except Exception as error:  # decoders raise all sorts of errors on damaged files
            raise UserError(f"mask {path} cannot be read ({error}); unpack or convert it again") from error
        if self.mask_ids is not None:
            try:
                ids = self.mask_ids(ids)
            except UserError as error:
                raise UserError(f"mask {path} {error}") from error
        if ids.ndim != 2:
            raise UserError(f"mask {path} has shape {ids.shape}, not one channel; {_colours_hint(ids)}{PREPARE}")
        return ids

    def _unknown_ids(self, ids: np.ndarray, is_allowed: np.ndarray) -> str:
        """What to say of ids that mean nothing."""
        unknown = np.setdiff1d(ids, np.flatnonzero(is_allowed))
        remedy = f"{PREPARE}, or correct the dataset's classes, ignore_index and reduce_zero_label"
        if unknown.tolist() == [255] and self.classes == 1:
            remedy = "masks of 0 and 255 need MappedDataset with ids=[0, 255] and two classes"
        return f"has id(s) {unknown[:5].tolist()}, which are neither a class nor ignored; {remedy}"


def _colours_hint(ids: np.ndarray) -> str:
    coloured = ids.ndim == 3 and ids.shape[2] in (3, 4) and ids.dtype == np.uint8
    return "for masks in colours see MappedDataset in docs/your_own_data.md; " if coloured else ""


def decode_mask(data: bytes, backend: str) -> np.ndarray:
    """The ids that a mask file stores.

    Args:
        data: of the file.
        backend: MMCV's decoder, such as "pillow", which keeps a palette's ids, or "cv2", which makes colours of them.

    Returns:
        (H, W), or (H, W, 3 or 4) with blue first; uint8 or uint16.

    Raises:
        Exception: of any kind, where it cannot be read or its ids cannot have been kept.
    """
    name = file_format(data[:16])
    if name in _LOSSY_FORMATS:
        raise ValueError(f"it is a {name}, which may change ids; save masks as PNG")
    if name not in MASK_FORMATS:
        raise ValueError(f"it is no mask of a known kind, {', '.join(MASK_FORMATS)}")
    ids = _decode_by_pillow(data) if backend == "pillow" else mmcv.imfrombytes(data, "unchanged", backend=backend)
    if ids is None:
        raise ValueError("OpenCV cannot decode it")
    if backend == "tifffile" and ids.ndim == 3:  # it leaves red first
        ids = np.concatenate([ids[..., 2::-1], ids[..., 3:]], axis=-1)
    if ids.shape[2:] == (1,):
        ids = ids[..., 0]
    if backend in ("pillow", "cv2") and ids.ndim == 2:
        ids = _stored_ids(ids, data, name)
    return _unsigned_ids(ids)


def _unsigned_ids(ids: np.ndarray) -> np.ndarray:
    """Wider types hold ids of 16 bits."""
    if ids.dtype.itemsize > 2:
        ids_of_16_bits = ids.astype(np.uint16)
        if (ids_of_16_bits != ids).any():
            raise ValueError("its values are no ids of 16 bits")
        return ids_of_16_bits
    if ids.dtype.kind == "i" and ids.itemsize == 2 and (ids < 0).any():
        raise ValueError("it has ids below 0")
    return ids.astype(f"u{ids.dtype.itemsize}")


def _decode_by_pillow(data: bytes) -> np.ndarray:
    """As MMCV's flag "unchanged", with a list of formats."""
    try:
        with Image.open(io.BytesIO(data), formats=MASK_FORMATS) as image:
            ids = np.array(image)
    except Image.DecompressionBombError:  # OpenCV reads such images, so it has to read their masks
        return mmcv.imfrombytes(data, flag="unchanged", backend="cv2")
    if ids.ndim == 3 and ids.shape[2] >= 3:
        ids[..., :3] = ids[..., 2::-1].copy()
    return ids


def _stored_ids(ids: np.ndarray, data: bytes, name: str | None) -> np.ndarray:
    """Undo what decoders do to grey levels for display: few bits are spread over 0..255, and white may be 0."""
    bits, white_is_zero = _grey_storage(data, name)
    if ids.dtype == bool:
        ids = ids.astype(np.uint8) * np.uint8(255)
    if white_is_zero:
        ids = np.iinfo(ids.dtype).max - ids
    factor = _GREY_FACTORS.get(bits)
    return ids if factor is None else ids // np.uint8(factor)


def _grey_storage(data: bytes, name: str | None) -> tuple[int, bool]:
    """Bits of a grey picture's levels, and whether 0 is white; 8 bits for all that is not grey.

    Raises:
        ValueError: a TIFF that is to be turned, or has bits that no decoder keeps.
    """
    if name == "PNG" and data[25] in (0, 4):  # the colour types without red, green and blue
        return data[24], False
    if name != "TIFF":
        return 8, False
    tags = tiff_tags(io.BytesIO(data), data[:16])
    if tags.get(_ORIENTATION, 1) != 1:
        raise ValueError("its orientation tag turns it; save it as it is to be seen, without the tag")
    bits = tags.get(_BITS, (1,))[0]
    photometric = tags.get(_PHOTOMETRIC)
    if photometric == _PALETTE:
        return 8, False
    if bits not in (1, 2, 4, 8, 16, 32):
        raise ValueError(f"it has {bits} bits per id; save it with 8 or 16")
    # Pillow turns 8 bits and fewer round where 0 is white, and leaves 16 as they are.
    return bits, photometric == WHITE_IS_ZERO and bits <= 8


@lru_cache(maxsize=8)
def label_table(
    classes: int, ignore: int, reduce: bool, label_map: tuple[tuple[int, int], ...] | None, bits: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """What the ids in a dataset's masks mean: MMSegmentation's ``LoadAnnotations`` as a table.

    Args:
        classes: how many there are.
        ignore: the dataset's ``ignore_index``.
        reduce: its ``reduce_zero_label``: 0 and the id of all ones are ignored, others are one less.
        label_map: the label of each (reduced) id, where MMSegmentation changes them; 255 for none.
        bits: of the masks.

    Returns:
        (2 ** bits,) the label of each id, in a type as small as it may be, and which ids are allowed, bool.
    """
    labels = np.arange(1 << bits)
    if reduce:
        labels -= 1
        labels[-1] = -1
    if label_map is not None:
        stored_labels = labels.copy()
        for stored_label, label in label_map:
            is_left_out = label == VOID and classes <= VOID
            labels[stored_labels == stored_label] = -1 if is_left_out else label
    is_allowed = (labels < classes) | (labels == ignore)
    labels[labels < 0] = ignore
    dtype = np.result_type(np.min_scalar_type(classes - 1), np.min_scalar_type(ignore))
    return labels.astype(dtype), is_allowed

"""Ground truth as MMSegmentation's ``LoadAnnotations`` reads it, in 16 bits, and with known ids only."""

from __future__ import annotations

from functools import lru_cache

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from clearclip.utils.errors import UserError

#: What LoadAnnotations writes where nothing is to be counted.
VOID = 255
PREPARE = "prepare it as datasets/README.md says"


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
        given, own = loader.reduce_zero_label, dataset.reduce_zero_label
        if given not in (None, own):
            raise UserError(
                f"LoadAnnotations has reduce_zero_label={given}, the dataset {own}; set it in the dataset only"
            )
        self.classes, self.ignore_index = len(dataset.metainfo["classes"]), dataset.ignore_index
        self.mask_ids = getattr(dataset, "mask_ids", None)

    def _load_seg_map(self, results: dict) -> None:
        path, label_map = results["seg_map_path"], results.get("label_map")
        try:
            ids = self._decode(fileio.get(path, backend_args=self.backend_args))
        except Exception as error:  # decoders raise all sorts of errors on damaged files
            raise UserError(f"mask {path} cannot be read ({error}); unpack or convert it again") from error
        if self.mask_ids is not None:
            try:
                ids = self.mask_ids(ids)
            except UserError as error:
                raise UserError(f"mask {path} {error}") from error
        if ids.ndim != 2:
            raise UserError(f"mask {path} has shape {ids.shape}, not one channel; {PREPARE}")
        given = None if label_map is None else tuple(label_map.items())
        bits = 8 * ids.dtype.itemsize
        table, known = label_table(self.classes, self.ignore_index, results["reduce_zero_label"], given, bits)
        if not known[ids].all():
            wrong = np.setdiff1d(ids, np.flatnonzero(known))[:5].tolist()
            raise UserError(
                f"mask {path} has id(s) {wrong}, which are neither a class nor ignored; {PREPARE}, or correct the "
                "dataset's classes, ignore_index and reduce_zero_label"
            )
        results["gt_seg_map"] = table[ids]
        results["seg_fields"].append("gt_seg_map")

    def _decode(self, data: bytes) -> np.ndarray:
        try:
            ids = mmcv.imfrombytes(data, flag="unchanged", backend=self.imdecode_backend)
        except Image.DecompressionBombError:  # OpenCV reads such images, so it has to read their masks
            ids = mmcv.imfrombytes(data, flag="unchanged", backend="cv2")
        if ids is None:
            raise ValueError("OpenCV cannot decode it")
        ids = ids[..., 0] if ids.shape[2:] == (1,) else ids
        if ids.dtype.itemsize > 2:
            whole = ids.astype(np.uint16)
            if (whole != ids).any():
                raise ValueError("its values are no ids of 16 bits")
            return whole
        return ids.astype(f"u{ids.dtype.itemsize}")


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
        (2 ** bits,) the label of each id, in a type as small as it may be, and which ids are known, bool.
    """
    labels = np.arange(1 << bits)
    if reduce:
        labels -= 1
        labels[-1] = -1
    if label_map is not None:
        before = labels.copy()
        for old, new in label_map:
            labels[before == old] = -1 if new == VOID and classes <= VOID else new
    known = (labels < classes) | (labels == ignore)
    labels[labels < 0] = ignore
    dtype = np.result_type(np.min_scalar_type(classes - 1), np.min_scalar_type(ignore))
    return labels.astype(dtype), known

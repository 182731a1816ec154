"""What the ids in a dataset's masks mean."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Masks have up to 16 bits.
IDS = 1 << 16


def label_table(dataset: Any) -> np.ndarray:
    """The label of each id that a mask file can hold, for a ``BaseSegDataset``.

    As MMSegmentation's ``LoadAnnotations``, with two differences: 16 bits in place of 8, and the dataset's own
    ``ignore_index`` where that class writes 255.

    Returns:
        (65536,) int32: 0..classes-1 or ``ignore_index``; ids that the dataset does not know keep their number, which
        is neither.
    """
    classes = list(dataset.metainfo["classes"])
    # Where a config asks for some classes of the dataset's class, the files have them all.
    known = list(type(dataset).METAINFO.get("classes") or classes)
    shift, ignore = int(dataset.reduce_zero_label), dataset.ignore_index
    table = np.arange(IDS, dtype=np.int32)
    table[shift : shift + len(known)] = [classes.index(name) if name in classes else ignore for name in known]
    if shift:
        table[0] = ignore
        # MMSegmentation compares ignore_index after the shift. An id of all ones is not shifted.
        if len(known) <= ignore < IDS - 1 and ignore != 255:
            table[ignore + 1] = ignore
    return table


def valid_ids(dataset: Any) -> np.ndarray:
    """The ids that a dataset's masks may hold: (n,) int64, ascending."""
    table = label_table(dataset)
    return np.flatnonzero((table < len(dataset.metainfo["classes"])) | (table == dataset.ignore_index))

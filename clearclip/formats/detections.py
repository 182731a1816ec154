"""Label maps as detections of the supervision package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clearclip.utils.errors import UserError


def to_detections(labels: np.ndarray, names: Sequence[str]) -> Any:
    """The classes of a label map, (H, W) integers, as ``supervision.Detections``: one for each class that occurs.

    ``class_id`` is the label, ``data["class_name"]`` its name. There is no confidence: a pixel's probability is none of
    a whole mask's.

    Raises:
        UserError: the supervision package is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise UserError(f"to_supervision() needs supervision ({error}); pip install supervision") from error
    # Imported above and not with this module, since few users have the package.
    present_labels = np.unique(labels)
    masks = labels[None] == present_labels[:, None, None]
    class_names = np.array([names[label] for label in present_labels])
    boxes = supervision.mask_to_xyxy(masks)
    return supervision.Detections(
        xyxy=boxes.astype(float),
        mask=masks,
        class_id=present_labels.astype(int),
        data={"class_name": class_names},
    )

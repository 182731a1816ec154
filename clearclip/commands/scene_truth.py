"""The ground truth of the miniature's drawn scenes, and how much of it a result has right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clearclip.commands.model_arguments import is_scene
from clearclip.miniature import BENCHMARK, CLASSES


def scene_truth(path: Path, classes: Sequence[str]) -> np.ndarray | None:
    """The ground truth of a drawn scene, (H, W) uint8; None for other images, or where other classes are looked for."""
    if list(classes) != list(CLASSES) or not is_scene(path):
        return None
    with Image.open(BENCHMARK / "annotations" / "val" / path.name, formats=["PNG"]) as label_map:
        return np.asarray(label_map)


def image_miou(labels: np.ndarray, truth: np.ndarray) -> float:
    """The mean IoU of one image in percent, over the classes that occur in its labels or in the ground truth.

    Args:
        labels, truth: (H, W) class ids of the miniature.
    """
    # MMSegmentation takes seconds to import, and a demo without ground truth needs none of it.
    from clearclip.evaluation.confusion import confusion_counts
    from clearclip.evaluation.scores import Scores

    class_count = len(CLASSES)
    counts = confusion_counts(torch.from_numpy(truth.copy()), torch.from_numpy(labels.astype(np.int64)), class_count)
    return Scores(counts.view(class_count, class_count).numpy()).summary["mIoU"]

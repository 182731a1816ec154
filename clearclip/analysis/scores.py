"""mIoU of many variants of the last block on a benchmark, in one pass over its images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clearclip.analysis.variants import Together
from clearclip.errors import UserError
from clearclip.evaluation.metric import Scores, confusion_counts
from clearclip.last_block import LastBlock
from clearclip.model import TOKENS_PER_BATCH, ClearCLIP
from clearclip.text import TextFeatures
from clearclip.windows import WindowGrid, label_map


def score_variants(
    model: ClearCLIP,
    samples: Iterable[tuple[Tensor, np.ndarray]],
    text: TextFeatures,
    variants: Sequence[LastBlock],
) -> dict[LastBlock, Scores]:
    """Scores of every variant.

    Args:
        model: windows, threshold and weights.
        samples: pairs of an image, (3, h, w) uint8 RGB at the size that the model should see, and its ground truth,
            (H, W) integers with 255 for what is ignored, of any size.
        text: the classes.
        variants: what to compare.
    """
    classes = len(text.classes)
    counts = {variant: np.zeros((classes, classes), dtype=np.int64) for variant in variants}
    with _method(model, Together(variants)):
        for image, truth in samples:
            for variant, labels in zip(variants, segment(model, image, truth.shape, text), strict=True):
                counts[variant] += confusion_counts(truth, labels.cpu().numpy(), classes)
    return {variant: Scores(count) for variant, count in counts.items()}


@torch.inference_mode()
def segment(model: ClearCLIP, image: Tensor, size: tuple[int, int], text: TextFeatures) -> Iterator[Tensor]:
    """Labels (H, W) of an image by every variant of the model's :class:`Together` method.

    Args:
        image: (3, h, w) uint8 RGB.
        size: height and width of the labels.

    Raises:
        UserError: features that are not finite.
    """
    encoder = model.image_encoder
    grid = WindowGrid.of(
        tuple(image.shape[-2:]), model.slide_crop, model.slide_stride, encoder.patch_size, encoder.fixed_size
    )
    windows = grid.cut(model.normalize(image))
    tokens = 1 + windows[0].shape[-2] * windows[0].shape[-1] // (encoder.patch_size[0] * encoder.patch_size[1])
    # Last block's outputs of all variants are held at once, so fewer windows fit than usual.
    batch = max(1, TOKENS_PER_BATCH[model.device.type] // (4 * tokens))
    found = []
    for start in range(0, len(windows), batch):
        features = encoder(torch.stack(windows[start : start + batch])).float()
        by_variant = features.unflatten(0, (len(encoder.method.variants), -1))
        found.append(F.normalize(by_variant, dim=-1) @ text.features.T)
    similarities = torch.cat(found, dim=1)
    if not similarities.isfinite().all():
        raise UserError("features have NaN or infinite values: the weights are damaged, or fp16 overflows")
    for similarity in similarities:
        yield label_map(grid.join(similarity), grid, size, text.word_to_class, model.logit_scale, model.prob_thd)


@contextmanager
def _method(model: ClearCLIP, method: Together) -> Iterator[None]:
    own = model.image_encoder.method
    model.image_encoder.method = method
    try:
        yield
    finally:
        model.image_encoder.method = own

"""Everything of MMSegmentation. Importing it registers the segmentor, the datasets and the metric."""

from clearclip.evaluation.mmseg_import import import_mmseg

import_mmseg()

from clearclip.evaluation import datasets, image_loading  # noqa: E402  (mmseg had to be imported first)
from clearclip.evaluation.checked_dataset import CheckedDataset  # noqa: E402
from clearclip.evaluation.metric import ConfusionMetric  # noqa: E402
from clearclip.evaluation.segmentor import ClearCLIPSegmentation, FrozenModelWrapper, ImagePreprocessor  # noqa: E402

__all__ = [
    "CheckedDataset",
    "ClearCLIPSegmentation",
    "ConfusionMetric",
    "FrozenModelWrapper",
    "ImagePreprocessor",
    "datasets",
    "image_loading",
]

"""Everything of MMSegmentation. Importing it registers the segmentor, the datasets and the metric."""

from mmengine.registry import Registry

from clearclip import methods
from clearclip.evaluation.compat import import_mmseg

import_mmseg()

from clearclip.evaluation import datasets  # noqa: E402  (mmseg had to be imported first)
from clearclip.evaluation.checked import CheckedDataset  # noqa: E402
from clearclip.evaluation.metric import ConfusionMetric  # noqa: E402
from clearclip.evaluation.preprocessor import ImagePreprocessor  # noqa: E402
from clearclip.evaluation.segmentor import ClearCLIPSegmentation, Replica  # noqa: E402


class _Methods(Registry):
    """:data:`clearclip.METHODS` as an MMEngine registry: what is registered in one is in the other."""

    def __init__(self):
        super().__init__("method", scope="clearclip")
        self._module_dict = methods.METHODS


METHODS = _Methods()

__all__ = [
    "METHODS",
    "CheckedDataset",
    "ClearCLIPSegmentation",
    "ConfusionMetric",
    "ImagePreprocessor",
    "Replica",
    "datasets",
]

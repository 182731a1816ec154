"""Everything that touches MMSegmentation, MMEngine and MMCV. ``import clearclip.mmseg`` registers the segmentor, the
datasets and the metric, as the configs' ``custom_imports`` do.
"""

from mmengine.registry import Registry

from clearclip import methods
from clearclip.mmseg.compat import import_mmseg

import_mmseg()

from clearclip.mmseg import datasets  # noqa: E402  (mmseg had to be imported first)
from clearclip.mmseg.checked import CheckedDataset  # noqa: E402
from clearclip.mmseg.metric import ConfusionMetric  # noqa: E402
from clearclip.mmseg.preprocessor import ImagePreprocessor  # noqa: E402
from clearclip.mmseg.segmentor import ClearCLIPSegmentation, Replica  # noqa: E402


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

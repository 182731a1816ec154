"""ClearCLIP (ECCV 2024): a frozen CLIP as an open-vocabulary segmenter, by changing its last ViT block only.

``import clearclip.evaluation`` registers the segmentor, the datasets and the metric with MMSegmentation.
"""

from clearclip.methods import METHODS, Context, LastBlock, Method, build_method
from clearclip.model import ClearCLIP
from clearclip.result import Segmentation
from clearclip.settings import ModelSettings
from clearclip.utils.errors import UserError
from clearclip.version import __version__

__all__ = [
    "METHODS",
    "ClearCLIP",
    "Context",
    "LastBlock",
    "Method",
    "ModelSettings",
    "Segmentation",
    "UserError",
    "__version__",
    "build_method",
]

"""ClearCLIP (ECCV 2024): a frozen CLIP as an open-vocabulary segmenter, by changing its last ViT block only.

``import clearclip.evaluation`` registers the segmentor, the datasets and the metric with MMSegmentation.

Where nobody has said how OpenMP's threads wait for each other, they soon let other programs work: PyTorch's spin for
milliseconds after every operation. This counts if PyTorch is loaded afterwards (docs/speed.md).
"""

import os

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ.update(GOMP_SPINCOUNT="10000", KMP_BLOCKTIME="1")  # turns; milliseconds

from clearclip.methods import METHODS, Context, LastBlock, Method, build_method
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.segmentation import Segmentation
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

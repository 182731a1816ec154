"""ClearCLIP (ECCV 2024): a frozen CLIP as an open-vocabulary segmenter, by changing its last ViT block only.

``import clearclip`` registers :class:`ClearCLIPSegmentation` and the datasets with MMSegmentation.
"""

from clearclip.compat import import_mmseg

import_mmseg()

from clearclip import data  # noqa: E402  (registers the datasets; mmseg had to be imported first)
from clearclip.errors import UserError  # noqa: E402
from clearclip.last_block import LastBlock  # noqa: E402
from clearclip.model import ClearCLIP  # noqa: E402
from clearclip.segmentation import Segmentation  # noqa: E402
from clearclip.segmentor import ClearCLIPSegmentation  # noqa: E402
from clearclip.version import __version__  # noqa: E402

__all__ = [
    "ClearCLIP",
    "ClearCLIPSegmentation",
    "LastBlock",
    "Segmentation",
    "UserError",
    "__version__",
    "data",
]

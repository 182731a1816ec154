"""Where the windows of an image lie, and how the scores of their patches become the labels of its pixels."""

from clearclip.windows.batched_readout import INVALID_LABEL, can_be_batched, labels_of_images
from clearclip.windows.image_labels import labels_by_image
from clearclip.windows.joining import ImageContext, join_windows
from clearclip.windows.lposs_plus import LPOSSPlus
from clearclip.windows.pamr import PAMR
from clearclip.windows.post_processing import POST_PROCESSINGS, PostProcessing, build_post_processing
from clearclip.windows.readout import Readout
from clearclip.windows.score_map import ScoreMap, WindowProbabilities
from clearclip.windows.tlp import TLP
from clearclip.windows.window_grid import WindowGrid

__all__ = [
    "INVALID_LABEL",
    "PAMR",
    "POST_PROCESSINGS",
    "TLP",
    "ImageContext",
    "LPOSSPlus",
    "PostProcessing",
    "Readout",
    "ScoreMap",
    "WindowGrid",
    "WindowProbabilities",
    "build_post_processing",
    "can_be_batched",
    "join_windows",
    "labels_by_image",
    "labels_of_images",
]

"""Image towers as dense features, and how a model's two towers are loaded."""

import clearclip.utils.open_clip_import  # noqa: F401  (before the modules that import parts of OpenCLIP)
from clearclip.backbones.clip_loading import LoadedCLIP, load_clip
from clearclip.backbones.dense_encoder import TOWERS, DenseEncoder, resize_positions
from clearclip.backbones.dino_tower import SecondEncoder, load_second_encoder
from clearclip.backbones.loading import Towers, load_towers
from clearclip.backbones.open_clip_tower import ImageEncoder
from clearclip.backbones.timm_tower import TimmEncoder

__all__ = [
    "TOWERS",
    "DenseEncoder",
    "ImageEncoder",
    "LoadedCLIP",
    "SecondEncoder",
    "TimmEncoder",
    "Towers",
    "load_clip",
    "load_second_encoder",
    "load_towers",
    "resize_positions",
]

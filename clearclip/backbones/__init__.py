"""Image towers as dense features, and how a model's two towers are loaded."""

from clearclip.backbones.base import TOWERS, DenseEncoder, resize_positions
from clearclip.backbones.dino import SecondEncoder, load_second_encoder
from clearclip.backbones.loading import Towers, load_towers
from clearclip.backbones.open_clip import ImageEncoder
from clearclip.backbones.timm import TimmEncoder

__all__ = [
    "TOWERS",
    "DenseEncoder",
    "ImageEncoder",
    "SecondEncoder",
    "TimmEncoder",
    "Towers",
    "load_second_encoder",
    "load_towers",
    "resize_positions",
]

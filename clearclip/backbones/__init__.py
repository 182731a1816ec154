"""Image towers as dense features, and how a model's two towers are loaded."""

from clearclip.backbones.base import DenseEncoder, resize_positions
from clearclip.backbones.loading import Towers, load_towers
from clearclip.backbones.open_clip import ImageEncoder

__all__ = ["DenseEncoder", "ImageEncoder", "Towers", "load_towers", "resize_positions"]

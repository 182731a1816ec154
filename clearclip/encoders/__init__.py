"""Image towers as dense features, and how a model's two towers are loaded."""

from clearclip.encoders.base import DenseEncoder, resize_positions
from clearclip.encoders.loading import Towers, load_towers
from clearclip.encoders.open_clip import ImageEncoder

__all__ = ["DenseEncoder", "ImageEncoder", "Towers", "load_towers", "resize_positions"]

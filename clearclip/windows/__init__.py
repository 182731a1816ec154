"""Where the windows of an image lie, and how their patch grids become the labels of its pixels."""

from clearclip.windows.grid import WindowGrid
from clearclip.windows.labels import class_probabilities, label_map
from clearclip.windows.tlp import propagate

__all__ = ["WindowGrid", "class_probabilities", "label_map", "propagate"]

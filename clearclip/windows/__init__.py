"""Where the windows of an image lie, and how their patch grids become the labels of its pixels."""

from clearclip.windows.labels import class_probabilities, label_map
from clearclip.windows.tlp import propagate
from clearclip.windows.window_grid import WindowGrid

__all__ = ["WindowGrid", "class_probabilities", "label_map", "propagate"]

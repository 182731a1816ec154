"""The miniature: a small OpenCLIP model and a benchmark of drawn scenes, both inside the package."""

from pathlib import Path
from typing import Any

from clearclip.miniature.classes import CLASSES, PALETTE

__all__ = [
    "BENCHMARK",
    "CLASSES",
    "DIRECTORY",
    "METHOD_OPTIONS",
    "MODEL_OPTIONS",
    "NAME",
    "PALETTE",
    "SHA256",
]

#: By which it is a ``model_name``.
NAME = "miniature"
DIRECTORY = Path(__file__).resolve().parent
BENCHMARK = DIRECTORY / "benchmark"
#: Of the bundled weights: results of others are not the miniature's.
SHA256 = "ab2febbf515042723fa0fcdb157eba146aec8163dbb027035a98cf70b45b1be2"
#: Options of a model that differ for it: it was trained on crops of 64 pixels, and its scenes have 128.
MODEL_OPTIONS = {"slide_crop": 64, "slide_stride": 32, "short_side": 128}
#: Options of methods, by method: for its six blocks the layers of ViT-B/16 halved, and a second encoder that needs no
#: download.
METHOD_OPTIONS: dict[str, dict[str, Any]] = {
    "ProxyCLIP": {"guide": "untrained-vit4", "multiple": 8},
    "RCS": {"layers": (2, 3, 4)},
    "SC-CLIP": {"pre": 4, "post": 1, "summed": (1, 2, 3, 4), "rho": 0.3},
    "SFP": {"pre": 4, "post": 1, "summed": (1, 2, 3, 4), "rho": 0.3},
    "LPOSS": {"guide": "untrained-vit4"},
}

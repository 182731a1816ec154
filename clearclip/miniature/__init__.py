"""The miniature: a small OpenCLIP model and a benchmark of drawn scenes, both inside the package."""

from pathlib import Path

from clearclip.miniature.classes import CLASSES, PALETTE

__all__ = ["BENCHMARK", "CLASSES", "DIRECTORY", "METHOD_OPTIONS", "PALETTE"]

DIRECTORY = Path(__file__).resolve().parent
BENCHMARK = DIRECTORY / "benchmark"

#: Options of methods for its six blocks, by method: the layers of ViT-B/16 halved.
METHOD_OPTIONS = {
    "RCS": {"layers": (2, 3, 4)},
    "SC-CLIP": {"pre": 4, "post": 1, "summed": (1, 2, 3, 4), "rho": 0.3},
}

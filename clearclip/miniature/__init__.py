"""The miniature: a small OpenCLIP model and a benchmark of drawn scenes, both inside the package."""

from pathlib import Path
from typing import Any

from clearclip.miniature.classes import CLASSES, PALETTE

__all__ = ["BENCHMARK", "CLASSES", "DIRECTORY", "METHOD_NOTE", "METHOD_OPTIONS", "PALETTE", "SHA256"]

DIRECTORY = Path(__file__).resolve().parent
BENCHMARK = DIRECTORY / "benchmark"
#: Of the bundled weights: results of others are not the miniature's.
SHA256 = "ab2febbf515042723fa0fcdb157eba146aec8163dbb027035a98cf70b45b1be2"

#: Options of methods, by method: for its six blocks the layers of ViT-B/16 halved, and a guide that needs no download.
METHOD_OPTIONS: dict[str, dict[str, Any]] = {
    "ProxyCLIP": {"guide": "untrained-vit4", "multiple": 8},
    "RCS": {"layers": (2, 3, 4)},
    "SC-CLIP": {"pre": 4, "post": 1, "summed": (1, 2, 3, 4), "rho": 0.3},
    "SFP": {"pre": 4, "post": 1, "summed": (1, 2, 3, 4), "rho": 0.3},
    "LPOSS": {"guide": "untrained-vit4"},
}
#: What to say about them below a table.
METHOD_NOTE = (
    "On the miniature RCS, SC-CLIP and SFP read half of the layers published for ViT-B/16; the second encoder of "
    "ProxyCLIP and LPOSS is untrained: two blocks with random weights and patches of 4 pixels."
)

"""The miniature: a small OpenCLIP model and a benchmark of drawn scenes, both inside the package."""

from pathlib import Path

from clearclip.miniature.classes import CLASSES, PALETTE

__all__ = ["BENCHMARK", "CLASSES", "DIRECTORY", "PALETTE"]

DIRECTORY = Path(__file__).resolve().parent
BENCHMARK = DIRECTORY / "benchmark"

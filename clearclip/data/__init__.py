"""Benchmarks: the datasets that MMSegmentation lacks, how they are read, and whether they are complete."""

from clearclip.data.datasets import (
    COCOObjectDataset,
    MiniatureDataset,
    PascalContext59Dataset,
    PascalContext60Dataset,
    PascalVOC20Dataset,
)
from clearclip.data.preprocessor import ImagePreprocessor

__all__ = [
    "COCOObjectDataset",
    "ImagePreprocessor",
    "MiniatureDataset",
    "PascalContext59Dataset",
    "PascalContext60Dataset",
    "PascalVOC20Dataset",
]

"""The methods by their names in the paper's table, on one loaded model."""

from __future__ import annotations

from clearclip.image_encoder import Method
from clearclip.methods import choose_method
from clearclip.model import ClearCLIP

#: Name → (model_type, ignore_residual) of :func:`clearclip.methods.choose_method`.
ROWS = {
    "CLIP": ("vanilla", False),
    "MaskCLIP": ("MaskCLIP", False),
    "SCLIP": ("SCLIP", False),
    "GEM": ("GEM", False),
    "ClearCLIP": ("ClearCLIP", True),
}


def method_of(row: str, ignore_residual: bool = False) -> Method:
    """The method of a row; ``ignore_residual`` makes it the row's "+ ClearCLIP"."""
    model_type, ignored = ROWS[row]
    return choose_method(model_type, ignored or ignore_residual)


def use_method(model: ClearCLIP, method: Method) -> ClearCLIP:
    """Let ``model`` compute its last blocks by ``method``; the weights and text features stay."""
    model.image_encoder.method = method
    return model

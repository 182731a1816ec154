"""The methods that are compared where none is named: CLIP, what came before ClearCLIP, and what came after it."""

from __future__ import annotations

from dataclasses import replace

from clearclip.methods.base import Method
from clearclip.methods.rcs import LAYERS, RCS
from clearclip.methods.scclip import SCCLIP

FAMILY = ("CLIP", "MaskCLIP", "SCLIP", "GEM", "ClearCLIP", "NACLIP", "ClearCLIP + RCS", "NACLIP + RCS", "SC-CLIP")
#: Layers for the bundled miniature, whose blocks are half as many as ViT-B/16's: the published ones, halved.
_MINIATURE_RCS = (2, 3, 4)
_MINIATURE_SCCLIP = {"pre": 4, "post": 1, "summed": (1, 2, 3, 4), "rho": 0.3}


def for_miniature(method: Method) -> Method:
    """The method with layers that the bundled miniature has, where it has the published ones."""
    if isinstance(method, RCS) and method.layers == LAYERS:
        return replace(method, layers=_MINIATURE_RCS)
    if isinstance(method, SCCLIP):
        missing = {name: value for name, value in _MINIATURE_SCCLIP.items() if getattr(method, name) is None}
        return replace(method, **missing)
    return method

"""The methods that are compared where none is named: CLIP, what came before ClearCLIP, and what came after it."""

FAMILY = (
    *("CLIP", "MaskCLIP", "SCLIP", "GEM", "ClearCLIP", "NACLIP", "ClearCLIP + RCS", "NACLIP + RCS"),
    *("NACLIP + RCS + SFR", "SC-CLIP", "PEARL", "ProxyCLIP"),
)

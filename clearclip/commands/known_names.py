"""Names that command lines offer, as plain data: a parser must not load PyTorch to list them.

The registries and modules that these names belong to are loaded only after the arguments have been read.
tests/commands/test_start.py compares both.
"""

#: The methods in :data:`clearclip.methods.METHODS`, in their order.
METHOD_NAMES = (
    "GEM",
    "LastBlock",
    "ClearCLIP",
    "SCLIP",
    "MaskCLIP",
    "CLIP",
    "vanilla",
    "LPOSS",
    "NACLIP",
    "PEARL",
    "ProxyCLIP",
    "RCS",
    "SC-CLIP",
    "SFP",
    "SFR",
)
#: What the colours of heat maps mean: see :meth:`clearclip.segmentation.Segmentation.heat_maps`.
HEAT_MAP_SCALE_NAMES = ("shared", "word")
#: How several processes are started: see :mod:`clearclip.evaluation.launchers`.
LAUNCHER_NAMES = ("none", "pytorch", "slurm")

"""How the last blocks are computed: each method is registered under its name in :data:`METHODS`.

CLIP, MaskCLIP, SCLIP and ClearCLIP are settings of one class in ``last_block.py``; others have a file each.
"""

from clearclip.methods.block_parts import BlockParts, CachedBlock
from clearclip.methods.gem import GEM
from clearclip.methods.last_block import ATTENTIONS, LastBlock
from clearclip.methods.lposs import LPOSS
from clearclip.methods.method import METHODS, NEEDS, Context, Method, SecondEncoderKey, build_method, option
from clearclip.methods.naclip import NACLIP
from clearclip.methods.pearl import PEARL
from clearclip.methods.proxyclip import ProxyCLIP
from clearclip.methods.rcs import RCS
from clearclip.methods.scclip import SCCLIP
from clearclip.methods.sfp import SFP
from clearclip.methods.sfr import SFR

__all__ = [
    "ATTENTIONS",
    "GEM",
    "LPOSS",
    "METHODS",
    "NACLIP",
    "NEEDS",
    "PEARL",
    "RCS",
    "SCCLIP",
    "SFP",
    "SFR",
    "BlockParts",
    "CachedBlock",
    "Context",
    "LastBlock",
    "Method",
    "ProxyCLIP",
    "SecondEncoderKey",
    "build_method",
    "option",
]

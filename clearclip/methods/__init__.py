"""How the last block is computed: one file per method, each registered under its name in :data:`METHODS`."""

from clearclip.methods.base import METHODS, NEEDS, Context, Method, build_method, option
from clearclip.methods.block import BlockParts
from clearclip.methods.gem import GEM
from clearclip.methods.last_block import ATTENTIONS, LastBlock
from clearclip.methods.naclip import NACLIP
from clearclip.methods.pearl import PEARL
from clearclip.methods.proxyclip import ProxyCLIP
from clearclip.methods.rcs import RCS
from clearclip.methods.scclip import SCCLIP
from clearclip.methods.sfr import SFR

__all__ = [
    "ATTENTIONS",
    "GEM",
    "METHODS",
    "NACLIP",
    "NEEDS",
    "PEARL",
    "RCS",
    "SCCLIP",
    "SFR",
    "BlockParts",
    "Context",
    "LastBlock",
    "Method",
    "ProxyCLIP",
    "build_method",
    "option",
]

"""How the last block is computed: one file per method, each registered under its name in :data:`METHODS`."""

from clearclip.methods.block_parts import BlockParts
from clearclip.methods.gem import GEM
from clearclip.methods.last_block import ATTENTIONS, LastBlock
from clearclip.methods.method import METHODS, NEEDS, Context, Method, build_method, option
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

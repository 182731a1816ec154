"""How the last block is computed: one file per method, each registered under its name in :data:`METHODS`."""

from clearclip.methods.base import METHODS, Context, Method, build_method
from clearclip.methods.block import BlockParts
from clearclip.methods.gem import GEM
from clearclip.methods.last_block import ATTENTIONS, LastBlock
from clearclip.methods.naclip import NACLIP
from clearclip.methods.rcs import RCS
from clearclip.methods.scclip import SCCLIP

__all__ = [
    "ATTENTIONS",
    "GEM",
    "METHODS",
    "NACLIP",
    "RCS",
    "SCCLIP",
    "BlockParts",
    "Context",
    "LastBlock",
    "Method",
    "build_method",
]

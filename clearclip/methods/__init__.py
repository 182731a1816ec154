"""How the last block is computed: one file per method, each registered under its name in :data:`METHODS`."""

from clearclip.methods.base import METHODS, Context, Method, build_method
from clearclip.methods.block import BlockParts
from clearclip.methods.gem import GEM
from clearclip.methods.last_block import ATTENTIONS, LastBlock

__all__ = ["ATTENTIONS", "GEM", "METHODS", "BlockParts", "Context", "LastBlock", "Method", "build_method"]

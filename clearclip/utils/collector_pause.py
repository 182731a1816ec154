"""Imports without Python's cyclic garbage collector.

PyTorch and OpenCLIP alone make 300,000 objects while they are imported, which stay. The collector is called again and
again meanwhile, and finds next to nothing among them: 15 % of the time of an import.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """A block in which no garbage is collected; afterwards the collector is as it was.

    What was made in the block, and anything else that lives, belongs to the oldest generation then.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Else the next collection, and the one after it, would look at all new objects at once. Where somebody has
        # frozen objects of their own, these are left frozen.
        if gc.get_freeze_count() == 0:
            gc.freeze()
            gc.unfreeze()
        if was_enabled:
            gc.enable()

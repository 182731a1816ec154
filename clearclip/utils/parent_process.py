"""A process that ends with the one that started it, though nobody tells it to."""

from __future__ import annotations

import os
import threading
import time

#: The id of the process that starts those of a group, where it is not their direct parent.
PARENT_VARIABLE = "CLEARCLIP_PARENT"


def end_with_parent() -> None:
    """Watch, in a thread, whether what started this process is still there, and end with it.

    Where torchrun is killed its processes are not told, and would wait for each other for half an hour.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = int(os.environ.get(PARENT_VARIABLE) or os.getppid())
    # A process whose parent is gone belongs to another one.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

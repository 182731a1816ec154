"""A function over many items, in several processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from clearclip.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], nproc: int, description: str
) -> Iterator[Result]:
    """``map(function, items)`` in ``nproc`` processes; the bar is shown on a terminal only.

    Args:
        function: a module's own function; items and results must pickle.
        items: what to call it with.
        nproc: number of processes, 1 for this one.
        description: in front of the bar.

    Yields:
        The results, in order.

    Raises:
        UserError: a process died. What ``function`` raises is raised here, and the rest is not begun.
    """
    bar = dict(total=len(items), desc=description, unit="file", disable=None)
    nproc = min(nproc, len(items))
    if nproc <= 1:
        yield from tqdm(map(function, items), **bar)
        return
    pool = ProcessPoolExecutor(nproc, initializer=_prepare_worker)
    try:
        chunks = max(1, min(32, len(items) // (4 * nproc)))
        yield from tqdm(pool.map(function, items, chunksize=chunks), **bar)
    except BrokenProcessPool as error:
        raise UserError("a worker process died (out of memory?); run it again with a smaller --nproc") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even where it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

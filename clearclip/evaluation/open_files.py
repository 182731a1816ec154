"""Reading processes where few files may be open at once (``ulimit -n``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.multiprocessing
from torch.utils.data import DataLoader

#: Tensors of an image: the image and its ground truth.
TENSORS_PER_IMAGE = 2
#: Files that everything else has open, about.
OTHER_FILES = 128


def open_files_needed(loader: DataLoader) -> int:
    """How many files a loader keeps open at once, where each tensor that a process hands over is one."""
    batches_in_flight = loader.num_workers * (loader.prefetch_factor or 0) + 1
    return batches_in_flight * (loader.batch_size or 1) * TENSORS_PER_IMAGE + OTHER_FILES


def open_files_allowed() -> int | None:
    """The limit of this process; None where the system has none to tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@contextmanager
def sharing_that_fits(loader: DataLoader) -> Iterator[None]:
    """Let reading processes hand tensors over by name where there are too few open files for a file each.

    PyTorch's usual way ends in an EOFError there. By names nothing stays open; it is not the usual way since names
    outlive processes that are killed, until PyTorch's manager removes them.
    """
    strategy = torch.multiprocessing.get_sharing_strategy()
    allowed = open_files_allowed()
    if allowed is not None and open_files_needed(loader) > allowed:
        # macOS has this one only, so nothing changes there.
        torch.multiprocessing.set_sharing_strategy("file_system")
        loader.worker_init_fn = _SharedByName(loader.worker_init_fn)
    try:
        yield
    finally:
        torch.multiprocessing.set_sharing_strategy(strategy)


class _SharedByName:
    """Tells a reading process that was not forked which way its parent takes."""

    def __init__(self, further_start: Callable[[int], None] | None):
        self.further_start = further_start

    def __call__(self, worker: int) -> None:
        torch.multiprocessing.set_sharing_strategy("file_system")
        if self.further_start is not None:
            self.further_start(worker)

"""Several processes: joining PyTorch's process group, failing together, and starting one with torchrun."""

from __future__ import annotations

import datetime
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist
from mmengine import dist
from mmengine.hooks import Hook
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import differences

T = TypeVar("T")
LAUNCHERS = ("none", "pytorch", "slurm")
#: How long a process waits for another one, which may be encoding text for all. Dead ones are noticed at once.
TIMEOUT = datetime.timedelta(minutes=30)
_PARENT, _FAILED = "CLEARCLIP_PARENT", "failed"
_store: Any = None  # what all processes of a group can write to and read


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_cpus() -> int:
    """How many of these each process of this run on this host may take."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or 1)
    return max(1, available_cpus() // processes)


@contextmanager
def process_group(launcher: str, device: str | None) -> Iterator[None]:
    """Join the process group that the launcher describes in the environment.

    What processes tell each other are a few small objects, so gloo serves GPUs as well; and it notices a dead process.

    Raises:
        UserError: an unknown launcher, or an environment that it did not set.
    """
    global _store
    if launcher not in LAUNCHERS:
        raise UserError(f"unknown launcher {launcher!r}; choose from {', '.join(LAUNCHERS)}")
    if launcher == "none" or torch_dist.is_initialized():
        yield
        return
    if launcher == "slurm":
        _describe_slurm()
    missing = [
        name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ
    ]
    if missing:
        raise UserError(f"launcher {launcher} did not set {', '.join(missing)}; start through dist_test.sh (or srun)")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() and device != "cpu" else 0
    if gpus:
        torch.cuda.set_device(choose_gpu(int(os.environ["LOCAL_RANK"]), gpus, launcher))
    else:
        # torchrun would leave each process one thread, whatever the machine.
        torch.set_num_threads(own_cpus())
    _store, rank, size = next(torch_dist.rendezvous("env://", timeout=TIMEOUT))
    torch_dist.init_process_group("gloo", store=_store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield
        torch_dist.barrier()
    except BaseException as error:
        _tell(error)
        raise
    finally:
        torch_dist.destroy_process_group()


def _tell(error: BaseException) -> None:
    """Let the other processes know, wherever they are."""
    try:
        if not _store.check([_FAILED]):
            _store.set(_FAILED, f"process {dist.get_rank()} stopped: {error or type(error).__name__}")
    except RuntimeError:  # who kept the store is gone, and so are the others
        return


def _end_with_parent() -> None:
    """End this process when what started it is gone: nobody else would."""
    parent = int(os.environ.get(_PARENT) or os.getppid())
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


class StopTogether(Hook):
    """Ends this process's evaluation where another process has failed."""

    def after_test_iter(self, *_: Any, **__: Any) -> None:
        if dist.get_world_size() > 1 and _store is not None and _store.check([_FAILED]):
            raise UserError(_store.get(_FAILED).decode())


@contextmanager
def together(what: str) -> Iterator[None]:
    """Where one process fails in this block, all of them fail, in one line that names it."""
    try:
        yield
    except Exception as error:
        gather(f"process {dist.get_rank()} stopped ({what}): {error}")
        raise
    said = [message for message in gather(None) if message]
    if said:
        raise UserError(said[0])


def agree(what: str, value: dict[str, Any]) -> None:
    """Raise a UserError on all processes where ``value`` is not the same on all; names the differences."""
    first, *others = gather(value)
    for rank, other in enumerate(others, start=1):
        if other != first:
            found = "; ".join(differences(first, other)[:5])
            raise UserError(f"process {rank} has other {what} than process 0 ({found}); give all of them the same")


def on_main_process(compute: Callable[[], T]) -> T:
    """What ``compute`` returns on process 0, on all of them; an error there is an error of all."""
    said: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            said[0] = compute()
        except UserError as error:
            said[1] = str(error)
    result, problem = gather(said)[0]
    if problem is not None:
        raise UserError(problem)
    return result


def gather(value: Any) -> list[Any]:
    """The values of all processes, in order.

    Raises:
        UserError: another process is gone.
    """
    if dist.get_world_size() == 1:
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    try:
        torch_dist.all_gather_object(found, value)
    except RuntimeError as error:  # what gloo raises where the other end is gone
        raise UserError(f"another process died ({error}); nothing was recorded, go on with --resume") from error
    return found


def choose_gpu(local_rank: int, gpus: int, launcher: str) -> int:
    """The GPU of a process.

    Raises:
        UserError: there are more processes than GPUs.
    """
    if gpus == 1 and launcher == "slurm":  # SLURM can show each task its own GPU only
        return 0
    if local_rank >= gpus:
        raise UserError(f"process {local_rank} of this host has no GPU ({gpus} visible); set GPUS={gpus}")
    return local_rank


def _describe_slurm() -> None:
    """Say in PyTorch's words what SLURM says in its own."""
    try:
        os.environ["RANK"] = os.environ["SLURM_PROCID"]
        os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
        os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
        nodes = os.environ["SLURM_NODELIST"]
    except KeyError as error:
        raise UserError(f"launcher slurm did not set {error.args[0]}; start with srun") from error
    if "MASTER_ADDR" not in os.environ:
        try:
            names = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError("scontrol does not name SLURM's nodes; set MASTER_ADDR to the first one") from error
        os.environ["MASTER_ADDR"] = names.stdout.split()[0]
    os.environ.setdefault("MASTER_PORT", "29500")


def torchrun(arguments: list[str]) -> int:
    """PyTorch's ``torchrun`` with the failed process's own words and exit code instead of a traceback.

    Returns:
        0, or the exit code of the first process that failed (1 for one that a signal ended).
    """
    from torch.distributed.run import main

    # The failed process has said why in a line of its own.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    os.environ[_PARENT] = str(os.getpid())
    try:
        main(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            print(f"error: process {rank} was ended by {failure.signal_name()}; nothing was recorded", file=sys.stderr)
            return 1
        return failure.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(torchrun(sys.argv[1:]))

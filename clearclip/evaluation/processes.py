"""Several processes: joining PyTorch's process group, agreeing, and failing together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist
from mmengine import dist
from mmengine.hooks import Hook

from clearclip.evaluation.launchers import JOIN_TIMEOUT, LAUNCHERS, describe_process, join_store
from clearclip.utils.continuation import command_to_continue
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import differences
from clearclip.utils.parent_process import end_with_parent

T = TypeVar("T")
#: Where in the store a process says why it failed.
FAILURE_KEY = "failed"
#: What all processes of a group can write to and read; None outside a group.
_store: Any = None


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus_per_process() -> int:
    """How many of these each process of this run on this host may take."""
    # torchrun names the processes of a host, SLURM its tasks where a job asks for a number of them.
    processes = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or "1"
    return max(1, available_cpus() // int(processes))


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
    describe_process(launcher)
    end_with_parent()
    if torch.cuda.is_available() and device != "cpu":
        torch.cuda.set_device(choose_gpu(int(os.environ["LOCAL_RANK"]), torch.cuda.device_count(), launcher))
    else:
        # torchrun would leave each process one thread, whatever the machine.
        torch.set_num_threads(cpus_per_process())
    _store, rank, size = join_store(launcher)
    torch_dist.init_process_group("gloo", store=_store, rank=rank, world_size=size, timeout=JOIN_TIMEOUT)
    try:
        yield
        torch_dist.barrier()
    except BaseException as error:
        _announce_failure(error)
        raise
    finally:
        torch_dist.destroy_process_group()


def _announce_failure(error: BaseException) -> None:
    """Write into the store why this process failed, where :class:`GroupStopHook` of the other processes finds it."""
    try:
        # The first failure is the cause; those that follow are its consequences.
        if not _store.check([FAILURE_KEY]):
            _store.set(FAILURE_KEY, f"process {dist.get_rank()} stopped: {error or type(error).__name__}")
    except RuntimeError:  # who kept the store is gone, and so are the others
        return


class GroupStopHook(Hook):
    """Ends this process's evaluation where another process has failed."""

    def after_test_iter(self, *_: Any, **__: Any) -> None:
        if dist.get_world_size() > 1 and _store is not None and _store.check([FAILURE_KEY]):
            raise UserError(_store.get(FAILURE_KEY).decode())


@contextmanager
def failing_together(stage: str) -> Iterator[None]:
    """Where one process fails in this block, all of them fail, in one line that names it.

    Every process has to enter the block: they meet at its end.

    Args:
        stage: when it is, for the message: "before the first image".
    """
    try:
        yield
    except Exception as error:
        values_of_all_processes(f"process {dist.get_rank()} stopped ({stage}): {error}")
        raise
    for message in values_of_all_processes(None):
        if message is not None:
            raise UserError(message)


def check_same_everywhere(subject: str, value: dict[str, Any]) -> None:
    """Raise a UserError on all processes where ``value`` is not the same on all; names the differences."""
    first_value, *further_values = values_of_all_processes(value)
    for rank, other_value in enumerate(further_values, start=1):
        if other_value != first_value:
            first_differences = "; ".join(differences(first_value, other_value)[:5])
            raise UserError(
                f"process {rank} has other {subject} than process 0 ({first_differences}); give all of them the same"
            )


def on_main_process(compute: Callable[[], T]) -> T:
    """What ``compute`` returns on process 0, on all of them; an error there is an error of all."""
    result: Any = None
    problem: str | None = None
    if dist.get_rank() == 0:
        try:
            result = compute()
        except UserError as error:
            problem = str(error)
    result, problem = values_of_all_processes((result, problem))[0]
    if problem is not None:
        raise UserError(problem)
    return result


def values_of_all_processes(value: Any) -> list[Any]:
    """The values of all processes, in order.

    Raises:
        UserError: another process is gone.
    """
    if dist.get_world_size() == 1:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    try:
        torch_dist.all_gather_object(values, value)
    except RuntimeError as error:  # what gloo raises where the other end is gone
        fault = f"another process died ({error}); nothing was recorded"
        raise UserError(f"{fault}; {command_to_continue()} goes on") from error
    return values


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

"""Several processes: joining PyTorch's process group, and starting one with torchrun."""

from __future__ import annotations

import datetime
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as torch_dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from clearclip.utils.errors import UserError

LAUNCHERS = ("none", "pytorch", "slurm")
#: How long a process waits for another one, which may be encoding text for all, before it takes it for dead.
TIMEOUT = datetime.timedelta(minutes=30)


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_processes() -> int:
    """Processes of this run on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or 1)


@contextmanager
def process_group(launcher: str, device: str | None) -> Iterator[None]:
    """Join the process group that the launcher describes in the environment: NCCL on GPUs, gloo without.

    MMEngine's own initialisation asks for a GPU in any case, so it is done here.

    Raises:
        UserError: an unknown launcher, or an environment that it did not set.
    """
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
    gpus = torch.cuda.device_count() if torch.cuda.is_available() and device != "cpu" else 0
    if gpus:
        torch.cuda.set_device(choose_gpu(int(os.environ["LOCAL_RANK"]), gpus, launcher))
    else:
        # torchrun would leave each process one thread, whatever the machine.
        torch.set_num_threads(max(1, available_cpus() // local_processes()))
    torch_dist.init_process_group("nccl" if gpus else "gloo", timeout=TIMEOUT)
    yield
    # Not after an exception: the others are told by torchrun, or by their time-out.
    torch_dist.barrier()
    torch_dist.destroy_process_group()


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

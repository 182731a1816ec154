"""Several processes: who am I, and is everybody still alive."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time

import torch
import torch.distributed as torch_dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from clearclip.errors import UserError

LAUNCHERS = ("none", "pytorch", "slurm")
_BEAT_SECONDS = 3.0
_SILENT_SECONDS = 30.0


def start_processes(launcher: str, device: str | None) -> None:
    """Join the process group that the launcher describes in the environment: NCCL on GPUs, gloo without.

    MMEngine's own initialisation asks for a GPU in any case, so it is done here.

    Raises:
        UserError: an unknown launcher, or an environment that it did not set.
    """
    if launcher not in LAUNCHERS:
        raise UserError(f"unknown launcher {launcher!r}; choose from {', '.join(LAUNCHERS)}")
    if launcher == "none" or torch_dist.is_initialized():
        return
    if launcher == "slurm":
        _describe_slurm()
    missing = [
        name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ
    ]
    if missing:
        raise UserError(f"launcher {launcher} did not set {', '.join(missing)}; start through dist_test.sh (or srun)")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() and device != "cpu" else 0
    local_rank = int(os.environ["LOCAL_RANK"])
    if gpus:
        if local_rank >= gpus:
            raise UserError(f"process {local_rank} of this host has no GPU ({gpus} visible); set GPUS={gpus}")
        torch.cuda.set_device(local_rank)
    else:
        # Without GPUs the processes share the cores, which would otherwise fight for them.
        torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    torch_dist.init_process_group("nccl" if gpus else "gloo")
    Heartbeat().start()


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


class Heartbeat(threading.Thread):
    """Ends this process when another one has died, on whichever host.

    torchrun ends the processes of its own host when one fails; those of other hosts would wait for it in a
    collective until that times out. Each process counts up a number in the group's store; one that stands still
    for half a minute is dead.
    """

    def __init__(self):
        super().__init__(daemon=True, name="heartbeat")
        self.store = torch_dist.PrefixStore("heartbeat", torch_dist.distributed_c10d._get_default_store())
        self.rank = torch_dist.get_rank()
        self.others = [rank for rank in range(torch_dist.get_world_size()) if rank != self.rank]

    def run(self) -> None:
        """Beat and listen until the process ends."""
        seen = {rank: (0, time.monotonic()) for rank in self.others}
        while True:
            try:
                self.store.add(f"beat{self.rank}", 1)
                for rank, (count, since) in seen.items():
                    now = self.store.add(f"beat{rank}", 0)
                    if self.store.add(f"done{rank}", 0):
                        seen[rank] = (now, float("inf"))
                    elif now != count:
                        seen[rank] = (now, time.monotonic())
                    elif time.monotonic() - since > _SILENT_SECONDS:
                        self._end_run(f"process {rank} died")
            except RuntimeError:
                self._end_run("process 0 died, or its host cannot be reached")
            time.sleep(_BEAT_SECONDS)

    def _end_run(self, why: str) -> None:
        if not _finished.is_set():
            print(f"error: {why}; nothing was recorded, go on with --resume", file=sys.stderr, flush=True)
            os._exit(1)


_finished = threading.Event()


def finish_processes() -> None:
    """Leave the process group in good order."""
    _finished.set()
    if torch_dist.is_initialized():
        store = torch_dist.PrefixStore("heartbeat", torch_dist.distributed_c10d._get_default_store())
        store.add(f"done{torch_dist.get_rank()}", 1)
        torch_dist.barrier()
        torch_dist.destroy_process_group()


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

"""Which launcher started this process, and how its processes find each other."""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch.distributed as torch_dist

from clearclip.utils.errors import UserError

LAUNCHERS = ("none", "pytorch", "slurm")
#: How long a process waits for another one, which may be encoding text for all. Dead ones are noticed at once.
JOIN_TIMEOUT = datetime.timedelta(minutes=30)
#: What PyTorch's launchers tell each process.
PYTORCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: How MPI's launchers tell that there are several processes. There is nothing here that joins them.
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
#: Ports that a SLURM job may take; those above may belong to connections that other programs open.
FIRST_PORT, PORT_COUNT = 10_000, 20_000
#: Ports that are tried one after the other, where others have taken the first one.
PORT_CANDIDATES = 8


def launcher_of_environment() -> str:
    """The launcher that started several processes of this kind: "pytorch", "slurm", or "none".

    Raises:
        UserError: a launcher whose processes cannot be joined.
    """
    if "RANK" in os.environ and _count_of("WORLD_SIZE") > 1:
        return "pytorch"
    # A batch script has SLURM_NTASKS as well, but only what srun starts is a task of a step.
    if "SLURM_PROCID" in os.environ and _count_of("SLURM_STEP_NUM_TASKS") > 1:
        return "slurm"
    for name in MPI_SIZES:
        if _count_of(name) > 1:
            raise UserError(
                f"{_count_of(name)} processes were started by MPI ({name}), which cannot be joined: start them by "
                "dist_test.sh, torchrun or srun, or pass --launcher none for processes that do not share the work"
            )
    return "none"


def _count_of(name: str) -> int:
    """A variable's whole number; 0 where there is none."""
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else 0


def describe_process(launcher: str) -> None:
    """Make sure that the environment says which of how many processes this is, in PyTorch's words.

    Raises:
        UserError: the launcher did not say it.
    """
    if launcher == "slurm":
        try:
            os.environ["RANK"] = os.environ["SLURM_PROCID"]
            os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
            os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
            nodes = os.environ["SLURM_NODELIST"]
        except KeyError as error:
            raise UserError(f"launcher slurm did not set {error.args[0]}; start with srun") from error
        os.environ.setdefault("MASTER_ADDR", _first_node(nodes))
        return
    missing_variables = [name for name in PYTORCH_VARIABLES if name not in os.environ]
    if missing_variables:
        raise UserError(
            f"launcher {launcher} did not set {', '.join(missing_variables)}; start through dist_test.sh (or srun)"
        )


def join_store(launcher: str) -> tuple[Any, int, int]:
    """What all processes of a launcher can write to and read, this process's rank and their number.

    Raises:
        UserError: the processes do not find each other.
    """
    if launcher != "slurm":
        return next(torch_dist.rendezvous("env://", timeout=JOIN_TIMEOUT))
    rank, size, address = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), os.environ["MASTER_ADDR"]
    step = f"{os.environ.get('SLURM_JOB_ID', '')}.{os.environ.get('SLURM_STEP_ID', '')}"
    fixed_port = os.environ.get("MASTER_PORT", "")
    ports = [int(fixed_port)] if fixed_port.isdigit() else slurm_ports(step)
    join = _host_store if rank == 0 else _find_store
    return join(address, ports, step), rank, size


def _first_node(nodes: str) -> str:
    """The address of the first of SLURM's nodes."""
    if _count_of("SLURM_NNODES") == 1:
        return "127.0.0.1"
    try:
        names = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError("scontrol does not name SLURM's nodes; set MASTER_ADDR to the first one") from error
    return names.stdout.split()[0]


def slurm_ports(step: str) -> list[int]:
    """The ports that the tasks of a job's step try, in order: other steps and jobs of a node try others."""
    return [FIRST_PORT + zlib.crc32(f"{step} {attempt}".encode()) % PORT_COUNT for attempt in range(PORT_CANDIDATES)]


def _host_store(address: str, ports: Sequence[int], step: str) -> Any:
    """Host the store at a free port, and tell the step's other tasks which one: at the first of ``ports`` that is free.

    The store is not at one of ``ports`` itself, since PyTorch waits without end for a program that does not answer.
    """
    store = torch_dist.TCPStore(address, 0, is_master=True, wait_for_workers=False, timeout=JOIN_TIMEOUT)
    for port in ports:
        try:
            listener = socket.create_server(("", port))
        except OSError:  # the port belongs to another program
            continue
        answer = f"{step} {store.port}\n".encode()
        threading.Thread(target=_answer_forever, args=(listener, answer), daemon=True).start()
        return store
    tried = ", ".join(map(str, ports))
    raise UserError(f"no port is free on {address} (tried {tried}); set MASTER_PORT to one that is, for all tasks")


def _answer_forever(listener: socket.socket, answer: bytes) -> None:
    """Send the same answer to whoever connects."""
    while True:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(answer)


def _find_store(address: str, ports: Sequence[int], step: str) -> Any:
    """Find the store that this step's first task hosts; other jobs and programs at the ports are left alone."""
    deadline = time.monotonic() + JOIN_TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        for port in ports:
            with suppress(OSError), socket.create_connection((address, port), timeout=2) as connection:
                answered_step, _, store_port = connection.makefile().readline(200).rpartition(" ")
                if answered_step == step:
                    return torch_dist.TCPStore(address, int(store_port), wait_for_workers=False, timeout=JOIN_TIMEOUT)
        time.sleep(0.2)
    raise UserError(f"the first task is not at {address}; set MASTER_ADDR to its node, and MASTER_PORT to a free port")

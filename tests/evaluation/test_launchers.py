"""Launchers are recognised by what they tell their processes; jobs that start at once on one host find their own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as torch_dist
from conftest import environment, rows_of

from clearclip import UserError
from clearclip.commands.eval_all import eval_all_command as eval_all
from clearclip.commands.eval_parser import eval_parser
from clearclip.evaluation import launchers
from clearclip.evaluation.launchers import describe_process, launcher_of_environment, slurm_ports
from clearclip.evaluation.run import evaluate

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "config" / "cfg_miniature.py"
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", *launchers.MPI_SIZES)


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No launcher's variables."""
    for name in [name for name in os.environ if name in VARIABLES or name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def slurm(job: int, rank: int, tasks: int = 2, **changes: str) -> dict[str, str]:
    """What srun tells a task on a single node."""
    variables = {
        "SLURM_JOB_ID": job, "SLURM_STEP_ID": 0, "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NTASKS": tasks,
        "SLURM_STEP_NUM_TASKS": tasks, "SLURM_NNODES": 1, "SLURM_NODELIST": "node[7]",
    }  # fmt: skip
    return {**{name: str(value) for name, value in variables.items()}, **changes}


#: Variables, and the launcher.
SEEN = {
    "none": ({}, "none"),
    "torchrun": ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "pytorch"),
    "one process of torchrun": ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, "none"),
    "srun": (slurm(7, 1), "slurm"),
    "one task": (slurm(7, 0, 1), "none"),
    "a batch script": ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "none"),
    "torchrun in srun": ({**slurm(7, 0), "RANK": "3", "WORLD_SIZE": "4"}, "pytorch"),
    "a size that is no number": ({"RANK": "0", "WORLD_SIZE": "many"}, "none"),
}


@pytest.mark.parametrize("name", SEEN)
def test_seen_from_the_environment(name, bare_environment):
    variables, launcher = SEEN[name]
    for variable, value in variables.items():
        bare_environment.setenv(variable, value)
    assert launcher_of_environment() == launcher


@pytest.mark.parametrize("name", launchers.MPI_SIZES)
def test_mpi_is_refused(name, bare_environment, tmp_path):
    """Every process would evaluate everything and add a record."""
    bare_environment.setenv(name, "2")
    with pytest.raises(UserError, match=rf"2 processes were started by MPI \({name}\).*dist_test\.sh"):
        evaluate(CONFIG, tmp_path)


def test_a_table_starts_its_processes_itself(bare_environment, tmp_path):
    bare_environment.setenv("RANK", "0")
    bare_environment.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="run it once, with --gpus N"):
        eval_all(["--miniature", "--results", str(tmp_path / "results.xlsx")])


@pytest.mark.parametrize("option", ["--local-rank=1", "--local_rank=1"])
def test_the_option_of_torch_distributed_launch(option, bare_environment):
    bare_environment.setenv("LOCAL_RANK", "")
    bare_environment.delenv("LOCAL_RANK")
    eval_parser().parse_args(["--config", "x", option])
    assert os.environ["LOCAL_RANK"] == "1"
    bare_environment.setenv("LOCAL_RANK", "3")  # torchrun's word counts
    eval_parser().parse_args(["--config", "x", option])
    assert os.environ["LOCAL_RANK"] == "3"


def test_what_a_launcher_left_out(bare_environment):
    bare_environment.setenv("RANK", "0")
    with pytest.raises(UserError, match="pytorch did not set WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"):
        describe_process("pytorch")
    with pytest.raises(UserError, match="slurm did not set SLURM_PROCID; start with srun"):
        describe_process("slurm")


def test_jobs_and_steps_have_ports_of_their_own():
    """The first ports of 200 steps of neighbouring jobs: fewer than one in a hundred pairs meets."""
    steps = [f"{job}.{step}" for job in range(4_000_000, 4_000_100) for step in range(2)]
    first_ports = [slurm_ports(step)[0] for step in steps]
    assert len(set(first_ports)) >= 190
    for step in steps:
        assert all(1024 < port < 32_768 for port in slurm_ports(step))
        assert slurm_ports(step) == slurm_ports(step)
        assert len(set(slurm_ports(step))) > 1


def test_jobs_that_meet_at_a_port(bare_environment):
    """Both derive the same ports, and a program that never answers has the first one: each finds its own tasks."""
    free_ports = []
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                free_ports.append(free.getsockname()[1])
        ports = [foreign.getsockname()[1], *free_ports]
        stores = {job: launchers._host_store("127.0.0.1", ports, f"{job}.0") for job in (1, 2)}
        for job, store in stores.items():
            store.set("job", str(job))
        for job in stores:
            assert launchers._find_store("127.0.0.1", ports, f"{job}.0").get("job") == str(job).encode()
        with pytest.raises(UserError, match=r"no port is free .* set MASTER_PORT"):
            launchers._host_store("127.0.0.1", ports, "3.0")


#: A task of a job: it joins, and says what all tasks of its job said.
TASK = """
import json, sys
from clearclip.evaluation.launchers import launcher_of_environment
from clearclip.evaluation.processes import values_of_all_processes, process_group
with process_group(launcher_of_environment(), "cpu"):
    answers = values_of_all_processes(sys.argv[1])
    # In one piece: both processes of a job write to one pipe, and torchrun leaves them unbuffered.
    sys.stdout.write(json.dumps(answers) + "\\n")
"""


def start(variables: dict[str, str], *command: str) -> subprocess.Popen:
    kept = {name: value for name, value in environment().items() if not name.startswith("SLURM_")}
    return subprocess.Popen(command, env={**kept, **variables}, stdout=subprocess.PIPE, text=True)


def started_jobs(launcher: str, count: int) -> Iterator[list[subprocess.Popen]]:
    """Jobs of two processes each that start at once; each process is told its job's number."""
    for job in range(count):
        if launcher == "srun":
            yield [start(slurm(job, rank), sys.executable, "-c", TASK, f"job {job}") for rank in range(2)]
        else:
            options = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
            script = ["--no-python", sys.executable, "-c", TASK, f"job {job}"]
            torchrun = [sys.executable, "-m", "clearclip.commands.torchrun", "--nproc_per_node=2", *options]
            yield [start({}, *torchrun, *script)]


@pytest.mark.parametrize("launcher", ["srun", "torchrun"])
def test_two_jobs_at_once(launcher):
    """Each finds its own processes, and no other."""
    rounds = int(os.environ.get("CLEARCLIP_JOB_ROUNDS", "1"))
    for _ in range(rounds):
        for job, processes in enumerate(list(started_jobs(launcher, 2))):
            for process in processes:
                output, _ = process.communicate()
                assert process.returncode == 0
                assert [json.loads(line) for line in output.splitlines()] == [[f"job {job}"] * 2] * (
                    2 if launcher == "torchrun" else 1
                )


def test_ctrl_c_is_ours(tmp_path, quick_name):
    """A terminal sends the signal to all processes: one line that says how to go on, no traceback, no record."""
    command = ["bash", str(REPOSITORY / "dist_test.sh"), str(CONFIG), "--workdir", str(tmp_path), "--workers", "0"]
    command += ["--results", str(tmp_path / "results.xlsx"), "--device", "cpu", "--cfg-options"]
    command += [f"model.model_name={quick_name}", "model.clip_type=None", "model.vit_type=None"]
    command += ["test_dataloader.batch_size=1"]
    variables = environment(PYTHON=sys.executable, GPUS="2")
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    seen = b""
    while not re.search(rb"evaluating: .* [1-9]\d*/200", seen):  # the first images are finished
        block = os.read(process.stderr.fileno(), 4096)
        assert block, seen
        seen += block
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate()
    lines = (seen + rest).decode().replace("\r", "\n").splitlines()
    assert process.returncode == 130
    assert [line for line in lines if line.startswith("interrupted")] == [
        "interrupted; what is finished is kept: the same command with --resume goes on"
    ]
    assert not any("Traceback" in line or "SignalException" in line for line in lines)
    assert not (tmp_path / "results.jsonl").exists()


def test_help_of_the_script():
    """Its own variables, and the options of eval.py."""
    done = subprocess.run(
        ["bash", str(REPOSITORY / "dist_test.sh"), "--help"],
        env=environment(PYTHON=sys.executable), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr
    assert all(word in done.stdout for word in ("GPUS", "MASTER_ADDR", "--resume", "--cfg-options"))


#: Stands for srun: starts the tasks, here two on one node, and ends with the worst exit code.
SRUN = """#!{python}
import os, subprocess, sys
command = [word for word in sys.argv[1:] if not word.startswith("--kill")]
tasks = [subprocess.Popen(command, env={{**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}})
         for rank in range(2)]
sys.exit(max(task.wait() for task in tasks))
"""


def test_the_sbatch_example(tmp_path, quick_name, bare_environment):
    """As it stands, with a stand-in for srun: one record of all images."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN.format(python=sys.executable))
    srun.chmod(0o755)
    arguments = [str(CONFIG), "--workdir", str(tmp_path / "work"), "--results", str(tmp_path / "results.xlsx")]
    arguments += ["--limit", "3", "--workers", "0", "--device", "cpu", "--cfg-options", "model.clip_type=None"]
    arguments += [f"model.model_name={quick_name}", "model.vit_type=None", "test_dataloader.batch_size=1"]
    variables = {**environment(PYTHON=sys.executable), **slurm(31, 0)}
    variables["PATH"] = f"{srun.parent}{os.pathsep}{variables['PATH']}"
    script = ["bash", str(REPOSITORY / "docs" / "slurm.sbatch"), *arguments]
    done = subprocess.run(script, env=variables, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,) = rows_of(tmp_path / "results.xlsx")
    assert record["images"] == 3


def test_no_group_is_left(bare_environment):
    assert not torch_dist.is_initialized()

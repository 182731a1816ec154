"""Devices, threads and processes: what can be checked without a GPU, by patching what would ask for one."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as torch_dist
from conftest import environment

from clearclip import ClearCLIP, UserError
from clearclip.evaluation.processes import choose_gpu, process_group
from clearclip.evaluation.run import evaluate
from clearclip.miniature import BENCHMARK, CLASSES
from clearclip.utils.fingerprint import digest
from clearclip.utils.plain_data import plain_data

CONFIG = Path(__file__).resolve().parents[2] / "config" / "cfg_miniature.py"


def test_the_runner_leaves_the_model_where_it_is(tmp_path, quick_name, monkeypatch):
    """MMEngine's runner would move it to the device that it likes best."""
    monkeypatch.setattr("mmengine.runner.runner.get_device", lambda: "meta")
    overrides = {"model.model_name": quick_name, "model.clip_type": None, "model.vit_type": None}
    (found,) = evaluate(CONFIG, tmp_path, overrides=overrides, device="cpu", limit=1)
    assert found.images == 1


@pytest.mark.parametrize(
    ("local_rank", "gpus", "launcher", "wanted"),
    [(0, 2, "pytorch", 0), (1, 2, "pytorch", 1), (3, 1, "slurm", 0), (1, 2, "slurm", 1)],
)
def test_every_process_has_a_gpu(local_rank, gpus, launcher, wanted):
    """SLURM can show each task its own GPU only."""
    assert choose_gpu(local_rank, gpus, launcher) == wanted


def test_more_processes_than_gpus():
    with pytest.raises(UserError, match=r"process 1 of this host has no GPU.*GPUS=1"):
        choose_gpu(1, 1, "pytorch")


def test_processes_without_a_gpu_share_the_cpus(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in {**names, "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("clearclip.evaluation.processes.available_cpus", lambda: 6)
    waits, join = [], torch_dist.init_process_group
    monkeypatch.setattr(torch_dist, "init_process_group", lambda *a, **k: waits.append(k["timeout"]) or join(*a, **k))
    before = torch.get_num_threads()
    try:
        with process_group("pytorch", "cpu"):
            assert torch_dist.get_backend() == "gloo"
            assert torch.get_num_threads() == 3
        # Rank 0 may encode text for minutes, while the others wait for it.
        assert waits[0].total_seconds() >= 600
        assert not torch_dist.is_initialized()
    finally:
        torch.set_num_threads(before)


#: One of two hosts: runs eval.py's command by each list of arguments, each time meeting the other host at a port.
HOST = """
import json, os, sys
from clearclip.commands.command_line import run_command
from clearclip.commands.main import parse_and_run
answers = []
for port, arguments in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    print("next", file=sys.stderr)
    answers.append(run_command(lambda: parse_and_run("eval", arguments)))
print(json.dumps(answers))
"""
OWN_METHOD = """
import sys
from dataclasses import dataclass
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
from clearclip import METHODS, Method
from constant_of_host import FACTOR

@METHODS.register_module()
@dataclass(frozen=True)
class OfHost(Method):
    def __call__(self, blocks, x, context):
        return FACTOR * x
"""
LIMIT = r"process 1 has other settings or data than process 0 \(dataset\.count was 2, is 3"
STOPPED = r"process 1 stopped \(before the first image\): root nowhere"
OWN_CODE = r"process 1 has other settings or data than process 0 .*constant_of_host\.py"
#: Arguments of both hosts, and what the first and the second one say.
DISAGREEMENTS = [
    (["--limit", "2"], ["--limit", "3"], LIMIT, LIMIT),
    (["--limit", "2"], ["--limit", "2", "--data-root", "nowhere"], STOPPED, "root nowhere"),
    (["--import", "0/of_host.py", "--methods", "OfHost"], ["--import", "1/of_host.py", "--methods", "OfHost"],
     OWN_CODE, OWN_CODE),
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_hosts_that_disagree_stop_together(tmp_path, quick_name):
    """Before the first image, in one line each, and nothing is recorded: whichever host has what is wrong.

    A constant in a file that a method's own imports differs as well: no row is made of two methods.
    """
    for host in ("0", "1"):
        (tmp_path / host).mkdir()
        (tmp_path / host / "of_host.py").write_text(OWN_METHOD)
        (tmp_path / host / "constant_of_host.py").write_text(f"FACTOR = {1 + int(host)}\n")
    common = ["--config", str(CONFIG), "--launcher", "pytorch", "--device", "cpu", "--workers", "0"]
    common += ["--results", "results.xlsx"]
    model = ["--cfg-options", f"model.model_name={quick_name}", "model.clip_type=None", "model.vit_type=None"]
    ports = [free_port() for _ in DISAGREEMENTS]
    processes = []
    for rank in range(2):
        scenarios = []
        for port, disagreement in zip(ports, DISAGREEMENTS, strict=True):
            scenarios.append((port, [*common, "--workdir", f"work{rank}", *disagreement[rank], *model]))
        variables = environment(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1")
        command = [sys.executable, "-c", HOST, json.dumps(scenarios)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, env=variables, cwd=tmp_path, text=True, **pipes))
    for rank, process in enumerate(processes):
        answers, said = process.communicate()
        assert "Traceback" not in said
        assert json.loads(answers) == [2] * len(DISAGREEMENTS)
        for disagreement, lines in zip(DISAGREEMENTS, said.split("next\n")[1:], strict=True):
            (error,) = [line for line in lines.splitlines() if line.startswith("error")]
            assert re.search(disagreement[2 + rank], error)
    assert not (tmp_path / "results.jsonl").exists()


def test_an_orphan_ends_by_itself():
    """A process whose starter is gone, by SIGKILL for example, does not wait for others."""
    child = (
        "import time; from clearclip.utils.parent_process import end_with_parent; end_with_parent(); time.sleep(9999)"
    )
    starter = (
        "import os, subprocess, sys; os.environ['CLEARCLIP_PARENT'] = str(os.getpid()); "
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", starter], env=environment(), stdout=subprocess.PIPE)
    assert done.returncode == 0  # and the pipe is closed: the child, who held it, has ended


def test_weights_are_known_by_their_bytes(monkeypatch):
    """Whatever the number of threads; a single bit makes another model. MPS has no float64."""
    monkeypatch.setattr(torch.Tensor, "double", None, raising=False)
    torch.manual_seed(0)
    tower, before = torch.nn.Linear(700, 700), torch.get_num_threads()
    try:
        names = set()
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            names.add(digest(plain_data(tower.state_dict())))
    finally:
        torch.set_num_threads(before)
    assert len(names) == 1
    with torch.no_grad():
        tower.bias[3] = torch.nextafter(tower.bias[3], torch.tensor(9.0))
    assert digest(plain_data(tower.state_dict())) not in names


def test_any_number_of_images_in_bounded_memory(quick_name):
    """An iterator is read as its results are, and a result keeps nothing on the device."""
    model = ClearCLIP.from_pretrained(quick_name, device="cpu", slide_crop=64, slide_stride=32, short_side=64)
    path, read = sorted((BENCHMARK / "images" / "val").iterdir())[0], []
    results = model.segment((read.append(index) or path for index in range(10_000)), list(CLASSES))
    for _ in range(3):
        assert next(results)._scores.device.type == "cpu"
    assert len(read) < 20

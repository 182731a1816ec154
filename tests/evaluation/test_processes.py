"""Devices, threads and processes: what can be checked without a GPU, by patching what would ask for one."""

from __future__ import annotations

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


def nodes(folder: Path, name: str, *own: list[str]) -> list[subprocess.Popen]:
    """One process on each of two hosts, as ``torchrun`` would start them, with arguments of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank, arguments in enumerate(own):
        files = ["--workdir", str(folder / f"work{rank}"), "--results", str(folder / "results.xlsx")]
        command = [sys.executable, str(CONFIG.parents[1] / "eval.py"), "--config", str(CONFIG), *files]
        command += ["--launcher", "pytorch", "--device", "cpu", "--workers", "0", *arguments]
        command += ["--cfg-options", f"model.model_name={name}", "model.clip_type=None", "model.vit_type=None"]
        variables = environment(RANK=str(rank), **common)
        started.append(subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True))
    return started


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (["--limit", "3"], r"process 1 has other settings or data than process 0 \(dataset\.count was 2, is 3"),
        (["--limit", "2", "--data-root", "nowhere"], r"process 1 stopped \(before the first image\): root nowhere"),
    ],
)
def test_hosts_that_disagree_stop_together(second, words, tmp_path, quick_name):
    """Before the first image, in one line each, and nothing is recorded: whichever host has what is wrong."""
    for rank, process in enumerate(nodes(tmp_path, quick_name, ["--limit", "2"], second)):
        _, said = process.communicate()
        assert process.returncode == 2
        lines = [line for line in said.splitlines() if line.startswith("error")]
        assert len(lines) == 1
        assert re.search(words.partition(": ")[2] if rank and "stopped" in words else words, lines[0])
        assert "Traceback" not in said
    assert not (tmp_path / "results.jsonl").exists()


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


def test_hosts_whose_own_code_differs_stop_together(tmp_path, quick_name):
    """A constant in a file that the method's own imports: no row is made of two methods."""
    arguments = []
    for host in ("0", "1"):
        folder = tmp_path / host
        folder.mkdir()
        (folder / "of_host.py").write_text(OWN_METHOD)
        (folder / "constant_of_host.py").write_text(f"FACTOR = {1 + int(host)}\n")
        arguments.append(["--limit", "2", "--import", str(folder / "of_host.py"), "--methods", "OfHost"])
    for process in nodes(tmp_path, quick_name, *arguments):
        _, stderr = process.communicate()
        assert process.returncode == 2
        assert "process 1 has other settings or data than process 0" in stderr
        assert "constant_of_host.py" in stderr and "Traceback" not in stderr
    assert not (tmp_path / "results.jsonl").exists()


def test_an_orphan_ends_by_itself():
    """A process whose starter is gone, by SIGKILL for example, does not wait for others."""
    child = (
        "import threading, time; from clearclip.evaluation.processes import _end_with_parent; "
        "threading.Thread(target=_end_with_parent, daemon=True).start(); time.sleep(9999)"
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

"""docs/use_the_result.md: its recipes run, and its service holds what it is given."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearclip import ClearCLIP
from clearclip.commands.command_line import run_command
from clearclip.commands.demo import demo_command
from clearclip.commands.model_arguments import SCENES
from clearclip.onnx_export import export_onnx

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "use_the_result.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
#: Of the load test; ``CLEARCLIP_REQUESTS=200 CLEARCLIP_CLIENTS=16`` for more.
REQUESTS = int(os.environ.get("CLEARCLIP_REQUESTS", "24"))
CLIENTS = int(os.environ.get("CLEARCLIP_CLIENTS", "8"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SCENES[0], "photo.png")
    return tmp_path


def recipe(beginning: str) -> str:
    [text] = [text for text in RECIPES if text.startswith(beginning)]
    return text


def test_recipes(capsys: pytest.CaptureFixture) -> None:
    for package in ("supervision", "pandas"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    Path("photos").mkdir()
    for scene in SCENES[:2]:
        shutil.copy(scene, "photos")
    command = ["photos", "--model", "miniature", "--classes", "sky, grass", "--out", "results"]
    assert run_command(lambda: demo_command(command)) == 0
    writer = cv2.VideoWriter("video.avi", cv2.VideoWriter_fourcc(*"MJPG"), 5, (128, 128))
    for _ in range(3):
        writer.write(cv2.imread("photo.png"))
    writer.release()
    names: dict = {}
    for text in RECIPES:
        if not text.startswith("# "):
            exec(compile(text, "docs/use_the_result.md", "exec"), names)
    assert "missing.jpg image missing.jpg does not exist" in capsys.readouterr().out
    assert list(names["shares"].columns) == ["image", "width", "height", "sky", "grass"] and len(names["greenest"]) == 2
    assert list(names["boats"].data["class_name"]) == ["boat"] and names["picture"].shape == (128, 128, 3)
    [task] = json.loads(Path("tasks.json").read_text())
    areas = {}
    for polygon in task["predictions"][0]["result"]:
        points = np.array(polygon["value"]["points"], np.float32)
        assert points.min() >= 0 and points.max() <= 100
        [name] = polygon["value"]["polygonlabels"]
        areas[name] = areas.get(name, 0) + cv2.contourArea(points) / 100**2
    result = names["model"].segment("photo.png", names["words"])
    assert areas["sky"] == pytest.approx(result.shares["sky"], abs=0.1)
    assert len(names["sky_by_frame"]) == 3 and names["sky_by_frame"][0] == pytest.approx(result.shares["sky"], abs=0.1)
    for name in ("result.png", "labels.png", "coco.json", "cvat.zip"):
        assert Path(name).is_file()


def test_onnx_recipe() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'clearclip[export]'")
    model = ClearCLIP.from_pretrained("miniature", device="cpu", precision="fp32")
    export_onnx(model, "model.onnx", ["sky", "grass", "boat"])
    names = {"model": model}
    exec(recipe("# onnx.py"), names)
    assert names["labels_of_patches"].shape == (8, 8)


def memory_of(process: int) -> int:
    """Resident memory in bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_service() -> None:
    """Many clients at once: every answer is what the model says alone, a bad image is an error of its own."""
    httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install gradio")
    for package in ("fastapi", "uvicorn", "multipart"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install gradio")
    Path("service.py").write_text(recipe("# service.py"), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "info"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    contents = [scene.read_bytes() for scene in SCENES]
    model = ClearCLIP.from_pretrained("miniature", device="cpu")
    words = [["sky", "grass"], ["sky", "boat", "water"]]
    expected = {(k, j): model.segment(SCENES[k], words[j]).shares for k in range(len(SCENES)) for j in range(2)}

    def ask(number: int) -> None:
        image, choice = number % len(contents), number // len(contents) % 2
        answer = client.post(f"/segment?words={','.join(words[choice])}", files={"file": contents[image]})
        assert answer.status_code == 200 and answer.json() == pytest.approx(expected[image, choice], abs=1e-3)

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as service:
        try:
            assert any("Uvicorn running" in line for line in service.stderr)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                with ThreadPoolExecutor(CLIENTS) as pool:
                    list(pool.map(ask, range(REQUESTS // 2)))
                    before = memory_of(service.pid) if sys.platform == "linux" else 0
                    list(pool.map(ask, range(REQUESTS)))
                    after = memory_of(service.pid) if sys.platform == "linux" else 0
                print(f"memory: {before / 1e6:.0f} MB, then {after / 1e6:.0f} MB")
                assert after < before + 100e6, "memory is flat"
                bad = client.post("/segment?words=sky,grass", files={"file": b"no image"})
                assert bad.status_code == 422 and "no image of a known kind" in bad.json()["detail"]
                ask(0)
        finally:
            service.terminate()

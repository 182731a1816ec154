"""hubconf.py through torch.hub, and the Space's app."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SCENE = ROOT / "clearclip" / "miniature" / "benchmark" / "images" / "val" / "0022.png"


def test_torch_hub(quick_name: str) -> None:
    model = torch.hub.load(str(ROOT), "miniature", source="local", method="SCLIP")
    assert model.label == "miniature" and model.method.label == "SCLIP"
    assert model.segment(SCENE, ["sky", "grass"]).labels.shape == (128, 128)
    assert torch.hub.load(str(ROOT), "clearclip", source="local", model_name=quick_name, pretrained=None).text_encoder


def test_space(tmp_path: Path) -> None:
    """It serves the page where the Space's variables say, and its one endpoint answers."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")
    client_module = pytest.importorskip("gradio_client")
    assert (
        (ROOT / "space" / "requirements.txt").read_text().splitlines()[-1].startswith("clearclip[web] @ git+https://")
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CLASSES": "sky, grass", "GRADIO_SERVER_NAME": "127.0.0.1"}
    command = [sys.executable, str(ROOT / "space" / "app.py")]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = next(line for line in process.stdout if line.startswith("page: "))
            client = client_module.Client(line.split()[1], verbose=False)
            facts, _ = client.predict(client_module.handle_file(str(SCENE)), "sky, boat", api_name="/segment")
            assert [entry["name"] for entry in facts["classes"]] == ["sky", "boat"]
        finally:
            process.terminate()

"""docs/your_own_method.md as written: the page's file and config are run, and its method is compared with a loop."""

from __future__ import annotations

import importlib
import math
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from conftest import rows_of
from PIL import Image

from clearclip import METHODS, ClearCLIP, build_method
from clearclip.commands.demo import main as demo
from clearclip.commands.evaluate import main as evaluate

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "your_own_method.md").read_text(encoding="utf-8")
METHOD, CONFIG = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A folder with the page's files beside copies of the configs; its method is forgotten afterwards."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "neighbours.py").write_text(METHOD)
    (tmp_path / "config" / "cfg_neighbours.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    METHODS.pop("Neighbours", None)
    sys.modules.pop("neighbours", None)


def test_the_page_evaluates(page):
    arguments = ["--config", "config/cfg_neighbours.py", "--limit", "3", "--device", "cpu", "--workers", "0"]
    assert evaluate(arguments) == 0
    assert evaluate([*arguments, "--methods", "ClearCLIP", "Neighbours"]) == 0
    rows = rows_of("results.xlsx")
    assert [row["method"] for row in rows] == ["Neighbours (sigma=2)", "ClearCLIP", "Neighbours"]
    assert rows[0]["facts"]["method"]["sigma"] == 2.0
    assert len({row["mIoU"] for row in rows}) == 3


def test_the_page_in_the_demo(page, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save("photo.png")
    assert demo(["photo.png", "--model", "miniature", "--import", "neighbours.py", "--model-type", "Neighbours"]) == 0
    assert '"method": "Neighbours"' in Path("outputs/demo/photo_labels.json").read_text()


def test_its_formula(page, tiny_name):
    importlib.import_module("neighbours")
    method = build_method({"type": "Neighbours", "sigma": 1.5})
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu")
    visual = open_clip.create_model(tiny_name).eval().visual
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (features,) = model.image_encoder(image, [method])
        tokens = before_last(visual, image)
        block = visual.transformer.resblocks[-1]
        q, k, v = (
            torch.nn.functional.linear(block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias)[0]
            .double()
            .chunk(3, dim=-1)
        )
        heads, width = block.attn.num_heads, q.shape[-1] // block.attn.num_heads
        out = torch.zeros_like(v)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for i in range(65):
                logits = []
                for j in range(65):
                    dot = float(k[i, part] @ k[j, part]) / math.sqrt(width)
                    if i and j:
                        (a, b), (c, d) = divmod(i - 1, 8), divmod(j - 1, 8)
                        dot += math.exp(-((a - c) ** 2 + (b - d) ** 2) / (2 * 1.5**2))
                    logits.append(dot)
                out[i, part] = torch.tensor(logits, dtype=torch.float64).softmax(0) @ v[:, part]
        expected = visual.ln_post(block.attn.out_proj(out.float()))[1:] @ visual.proj
    assert torch.allclose(features[0].flatten(0, 1), expected, atol=1e-4)


def before_last(visual, image: torch.Tensor) -> torch.Tensor:
    """Tokens before the last block, by OpenCLIP's own forward pass."""
    seen = []
    handle = visual.transformer.resblocks[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    visual(image)
    handle.remove()
    return seen[0]

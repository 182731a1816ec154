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
from clearclip.commands.demo import demo_command as demo
from clearclip.commands.eval import eval_command as evaluate
from clearclip.commands.eval_all import eval_all_command as eval_all

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "your_own_method.md").read_text(encoding="utf-8")
METHOD, CONFIG, WORDS, JOIN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


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
    METHODS.pop("SameWords", None)
    METHODS.pop("CentreFirst", None)
    sys.modules.pop("neighbours", None)


def test_the_page_evaluates(page):
    arguments = ["--config", "config/cfg_neighbours.py", "--limit", "3", "--device", "cpu", "--workers", "0"]
    assert evaluate(arguments) == 0
    assert evaluate([*arguments, "--methods", "ClearCLIP", "Neighbours"]) == 0
    rows = rows_of("results.xlsx")
    assert [row["method"] for row in rows] == ["Neighbours (sigma=2)", "ClearCLIP", "Neighbours"]
    assert rows[0]["facts"]["method"]["sigma"] == 2.0
    assert len({row["mIoU"] for row in rows}) == 3


def test_the_page_in_a_table(page, capsys):
    arguments = ["--import", "neighbours.py", "--rows", "Neighbours", "MaskCLIP", "--table", "2", "--miniature"]
    assert eval_all([*arguments, "--limit", "2", "--device", "cpu"]) == 0
    assert [row["method"] for row in rows_of("results.xlsx")] == ["MaskCLIP", "Neighbours"]
    assert eval_all([*arguments[2:4], "--miniature", "--dry-run"]) == 0
    assert "Neighbours" in capsys.readouterr().out


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


def test_the_method_that_uses_words(page, tiny_name):
    """Against loops; and what others compute beside it does not change."""
    exec(compile(WORDS, "same_words.py", "exec", dont_inherit=True), {"__name__": "same_words"})
    method = build_method({"type": "SameWords", "share": 3.0})
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu")
    visual, text = open_clip.create_model(tiny_name).eval().visual, model.encode_text(["sky", "hill | mountain"])
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, other = model.encode(image, [method, build_method("ClearCLIP")], text)
        assert torch.equal(other, model.encode(image, [build_method("ClearCLIP")])[0])
        tokens, block = before_last(visual, image), visual.transformer.resblocks[-1]
        projected = torch.nn.functional.linear(block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias)[
            0
        ]
        q, _, v = projected.double().chunk(3, dim=-1)
        width, agree = q.shape[-1] // block.attn.num_heads, torch.zeros(65, 65, dtype=torch.float64)

        def run() -> torch.Tensor:
            parts = [slice(start, start + width) for start in range(0, q.shape[-1], width)]
            gathered = [((q[:, h] @ q[:, h].T / math.sqrt(width) + agree).softmax(dim=-1) @ v[:, h]) for h in parts]
            return visual.ln_post(block.attn.out_proj(torch.cat(gathered, dim=-1).float()))[1:] @ visual.proj

        words = []
        for patch in run().double():
            cosines = [float(patch @ word.double() / patch.norm()) for word in text.features]
            share = [math.exp(40 * (cosine - max(cosines))) for cosine in cosines]
            words.append([one / sum(share) for one in share])
        for i, one in enumerate(words):
            for j, two in enumerate(words):
                agree[1 + i, 1 + j] = 3.0 * sum(a * b for a, b in zip(one, two, strict=True))
        expected = run()
    assert torch.allclose(features[0].flatten(0, 1), expected, atol=1e-4)
    assert not torch.allclose(features, other, atol=1e-2)


@pytest.mark.parametrize("size", [(64, 100), (70, 90), (40, 64)])
def test_the_method_that_joins_windows(page, tiny_name, size):
    """Against loops over windows and pixels, padded windows among them; with one weight everywhere it is ClearCLIP."""
    exec(compile(JOIN, "centre_first.py", "exec", dont_inherit=True), {"__name__": "centre_first"})
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=32)
    text = model.encode_text(["sky", "hill | mountain"])
    image = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    methods = [build_method({"type": "CentreFirst", "edge": edge}) for edge in (0.2, 1.0)]
    ((centred, even, plain),) = model.similarities([image], text, [*methods, build_method("ClearCLIP")])
    torch.testing.assert_close(even.dense(size), plain.dense(size), atol=1e-5, rtol=0)
    grid, total, weights = plain.grid, torch.zeros(3, *size), torch.zeros(size)
    windows = plain.scores.unflatten(0, (-1, grid.rows.cells)).unflatten(2, (-1, grid.columns.cells))
    for i, y in enumerate(grid.rows.starts):
        for j, x in enumerate(grid.columns.starts):
            padded = [8 * axis.cells for axis in (grid.rows, grid.columns)]
            up = torch.nn.functional.interpolate(windows[i, :, j].permute(2, 0, 1)[None], size=padded, mode="bilinear")
            for row in range(grid.rows.extent):
                for column in range(grid.columns.extent):
                    down = 2 * row / (grid.rows.extent - 1) - 1
                    right = 2 * column / (grid.columns.extent - 1) - 1
                    weight = 0.2 ** ((down**2 + right**2) / 2)
                    value = up[0, :, grid.rows.pad[0] + row, grid.columns.pad[0] + column]
                    total[:, y + row, x + column] += weight * value
                    weights[y + row, x + column] += weight
    torch.testing.assert_close(centred.dense(size).permute(2, 0, 1), total / weights, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(centred.dense(size), plain.dense(size), atol=1e-3) or grid.count == 1


def before_last(visual, image: torch.Tensor) -> torch.Tensor:
    """Tokens before the last block, by OpenCLIP's own forward pass."""
    seen = []
    handle = visual.transformer.resblocks[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    visual(image)
    handle.remove()
    return seen[0]

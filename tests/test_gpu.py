"""What only a GPU can show. Without one these are skipped, and ``make test`` says how many."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import rows_of
from torch import nn

from clearclip import ClearCLIP
from clearclip.commands.eval import eval_command as evaluate
from clearclip.miniature import BENCHMARK, CLASSES
from clearclip.utils.images import read_image

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
ROOT = Path(__file__).resolve().parents[1]
SCENES = sorted((BENCHMARK / "images" / "val").glob("*.png"))
METHODS = ["CLIP", "MaskCLIP", "SCLIP", "GEM", "ClearCLIP"]


def labels(model: ClearCLIP, images: list, words: list[str]) -> np.ndarray:
    """The labels of all images by all methods, in a row."""
    results = model.compare(images, words, METHODS)
    return np.concatenate([found[name].labels.ravel() for found in results for name in METHODS])


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Two images of ViT-B/16's size that are not the same everywhere."""
    return [read_image(path).repeat(4, 0).repeat(5, 1) for path in SCENES[:2]]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ["miniature", "ViT-B-16"])
def test_half_precision_gives_the_labels_of_fp32(name, precision, photos):
    images, weights = (SCENES[:8], None) if name == "miniature" else (photos, "random")
    found = []
    for used in ("fp32", precision):
        torch.manual_seed(0)
        model = ClearCLIP.from_pretrained(name, weights, device=DEVICE, precision=used, quick_gelu=name != "miniature")
        found.append(labels(model, images, list(CLASSES)))
    assert (found[0] == found[1]).mean() >= 0.995
    norms = [module for module in model.image_encoder.modules() if isinstance(module, nn.LayerNorm)]
    assert {norm.weight.dtype for norm in norms} == {torch.float32}


def test_fp32_gives_the_labels_of_the_cpu(photos):
    found = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(0)
        model = ClearCLIP.from_pretrained("ViT-B-16", "random", device=device, precision="fp32", quick_gelu=True)
        result = model.segment(photos[0], list(CLASSES))
        found.append(result.labels)
        assert model.device.type == torch.device(device).type
        assert {one.device.type for one in (*model.parameters(), *model.buffers())} == {model.device.type}
    assert (found[0] == found[1]).mean() >= 0.999


def test_memory_that_runs_out_halves_the_batch(photos, monkeypatch):
    torch.manual_seed(0)
    model = ClearCLIP.from_pretrained("ViT-B-16", "random", device=DEVICE, quick_gelu=True)
    before = labels(model, photos, list(CLASSES))
    encode = model.image_encoder.forward

    def small(images, methods):
        if len(images) > 1:  # more than any GPU has
            torch.empty(1 << 50, dtype=torch.uint8, device=DEVICE)
        return encode(images, methods)

    monkeypatch.setattr(model.image_encoder, "forward", small)
    with pytest.warns(UserWarning, match="window_batch is now 1"):
        after = labels(model, photos, list(CLASSES))
    assert (before == after).mean() >= 0.995  # other batches round in other ways


def run(folder: Path, name: str, *arguments: str) -> dict:
    """A row of an evaluation of 12 scenes by the command line."""
    results = folder / f"{name}.xlsx"
    common = ["--config", str(ROOT / "config" / "cfg_miniature.py"), "--limit", "12", "--results", str(results)]
    assert evaluate([*common, "--workdir", str(folder / name), *arguments]) == 0
    return rows_of(results)[-1]


def test_commands_compute_where_they_are_told_to(tmp_path):
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    run(tmp_path, "cpu", "--device", "cpu", "--workers", "0")
    assert torch.cuda.max_memory_allocated() == held
    last = f"{DEVICE}:{torch.cuda.device_count() - 1}"
    run(tmp_path, "last", "--device", last, "--workers", "0")
    assert torch.cuda.max_memory_allocated(last) > held


def test_batches_and_workers_change_nothing(tmp_path):
    options = ["--device", DEVICE, "--cfg-options", "model.precision=fp32"]
    rows = [run(tmp_path, f"b{size}", "--batch-size", size, "--workers", "2", *options) for size in ("1", "4", "12")]
    assert max(row["mIoU"] for row in rows) - min(row["mIoU"] for row in rows) < 0.01


def test_processes_give_the_result_of_one(tmp_path):
    alone = run(tmp_path, "alone", "--device", DEVICE, "--batch-size", "1", "--cfg-options", "model.precision=fp32")
    command = ["bash", str(ROOT / "dist_test.sh"), str(ROOT / "config" / "cfg_miniature.py"), "--limit", "12"]
    more = ["--batch-size", "1", "--results", str(tmp_path / "many.xlsx"), "--workdir", str(tmp_path / "many")]
    environment = {**os.environ, "PYTHON": sys.executable, "GPUS": str(torch.cuda.device_count())}
    subprocess.run([*command, *more, "--cfg-options", "model.precision=fp32"], env=environment, check=True)
    (row,) = rows_of(tmp_path / "many.xlsx")
    assert row["iou"] == alone["iou"]


def test_demo(tmp_path):
    command = [sys.executable, str(ROOT / "demo.py"), "--device", DEVICE, "--compare", "--out", str(tmp_path)]
    subprocess.run(command, check=True)
    assert len(list(tmp_path.glob("*_compare.png"))) > 0

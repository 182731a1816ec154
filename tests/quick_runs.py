"""How tests run the commands: with the quick model, on the CPU, in this process or in several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from conftest import environment
from mmseg.structures import SegDataSample

from clearclip.evaluation import ClearCLIPSegmentation
from clearclip.evaluation.config import load_config

ROOT = Path(__file__).resolve().parents[1]


def config(name: str) -> str:
    return str(ROOT / "config" / f"cfg_{name}.py")


def quick(name: str) -> list[str]:
    return [
        "--device",
        "cpu",
        "--cfg-options",
        f"model.model_name={name}",
        "model.clip_type=None",
        "model.vit_type=None",
    ]


def predict(name: str, quick_name: str, images: list[Path]) -> list[np.ndarray]:
    """Labels of a config's segmentor for images that are read, resized and normalised here."""
    cfg = load_config(config(name), {"model.model_name": quick_name, "model.clip_type": None, "model.vit_type": None})
    options = cfg.model.to_dict()
    options.pop("type")
    segmentor = ClearCLIPSegmentation(**options, device="cpu")
    out = []
    for path in images:
        image = cv2.imread(str(path))
        height, width = image.shape[:2]
        scale = min(2048 / max(height, width), 448 / min(height, width))
        image = cv2.resize(image, (int(width * scale + 0.5), int(height * scale + 0.5)))
        image = (image[:, :, ::-1] - np.array([122.771, 116.746, 104.094])) / np.array([68.501, 66.632, 70.323])
        sample = SegDataSample(metainfo=dict(ori_shape=(height, width)))
        segmentor.predict(torch.from_numpy(image).permute(2, 0, 1)[None].float(), [sample])
        out.append(sample.pred_sem_seg.data[0].numpy())
    return out


def run(arguments: list[str], gpus: int, **variables: str) -> subprocess.CompletedProcess:
    """Several processes, as a person starts them."""
    variables |= {"PYTHON": sys.executable, "GPUS": str(gpus)}
    command = ["bash", "dist_test.sh", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True)

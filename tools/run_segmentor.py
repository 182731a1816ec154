"""One of the two segmentors that compare_with_release.py compares, in a process of its own.

The authors' release brings an ``open_clip`` of its own, so this process must not import ours when it runs theirs.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
import time
import types
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: What the release imports and no case needs: CUDA and C++ operators, drawing, and BLIP (see NOT_RUN).
UNUSED = ("mmcv._ext", "einops", "BLIP.models.blip_retrieval")


class StandIn(types.ModuleType):
    """A module of which every name exists and none may be called."""

    def __init__(self, name: str):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)  # for those who ask whether the module exists

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> None:
            raise NotImplementedError(f"{self.__name__}.{name} is a stand-in")

        return missing


def release(plan: dict, folder: Path) -> Callable[[dict], torch.nn.Module]:
    """Their class, ready to be called as they call it. Nothing of theirs is changed on disk."""
    for name in UNUSED:
        if name.startswith("BLIP") or importlib.util.find_spec(name) is None:
            sys.modules[name] = StandIn(name)
    import open_clip  # theirs

    open_clip.add_model_config(folder / "compared.json")
    create = open_clip.create_model
    state = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    net = create("compared", None, plan["precision"])
    net.load_state_dict(state)
    net.eval().to(plan["device"])
    texts: dict[bytes, torch.Tensor] = {}

    def encode_text(tokens: torch.Tensor) -> torch.Tensor:
        # The same for all methods, so each text is encoded once. They change what they get in place, so it is a copy.
        key = tokens.cpu().numpy().tobytes()
        if key not in texts:
            texts[key] = net.encode_text(tokens)
        return texts[key].clone()

    def create_model(name: str, pretrained: str, precision: str, *_: Any, **__: Any) -> torch.nn.Module:
        """In place of published weights in fp16: the weights that are compared, in the precision that is compared."""
        model = copy.deepcopy(net)
        model.encode_text = encode_text
        return model

    open_clip.create_model = create_model
    if plan["precision"] == "fp32":
        torch.Tensor.half = torch.Tensor.float
    from clearclip_segmentor import ClearCLIPSegmentation

    def build(case: dict) -> torch.nn.Module:
        return ClearCLIPSegmentation(
            "CLIP",
            plan["vit_type"],
            case["method"],
            str(folder / case["names"]),
            device=torch.device(plan["device"]),
            ignore_residual=case["dropped"],
            prob_thd=case["threshold"],
            slide_stride=case["stride"],
            slide_crop=case["crop"],
        )

    return build


def ours(plan: dict, folder: Path) -> Callable[[dict], torch.nn.Module]:
    """Our segmentor, as configs build it."""
    from clearclip import ClearCLIP, ModelSettings
    from clearclip.backbones import load_towers
    from clearclip.evaluation import ClearCLIPSegmentation

    warnings.filterwarnings("ignore", message="model_type='vanilla' with ignore_residual=True")
    device, precision = torch.device(plan["device"]), plan["precision"]
    settings = ModelSettings(**(plan["own"] or {"model_name": f"local-dir:{folder}"}), cached=False)
    # Not from_settings(), which refuses fp16 on a CPU: slow, but here a way to compare it.
    towers = load_towers(settings, device, precision)
    model = ClearCLIP(towers.image, towers.text, settings, mean=towers.mean, std=towers.std, precision=precision).to(
        device
    )

    def build(case: dict) -> torch.nn.Module:
        return ClearCLIPSegmentation(
            name_path=str(folder / case["names"]),
            model=model,
            model_type=case["method"],
            ignore_residual=case["dropped"],
            prob_thd=case["threshold"],
            slide_stride=case["stride"],
            slide_crop=case["crop"],
            keep_logits=True,
        )

    return build


def main(which: str, folder: Path) -> None:
    """Run ``release`` or ``ours`` on the plan in ``folder``.

    Each image of a case gives ``WHICH-CASE-IMAGE.npz`` there: labels (H, W), probabilities (classes, H, W), seconds.
    """
    torch.backends.cudnn.allow_tf32 = False  # PyTorch's default would round convolutions
    plan = json.loads((folder / "plan.json").read_text())
    build = {"release": release, "ours": ours}[which](plan, folder)
    images = dict(np.load(folder / "images.npz"))
    from mmseg.structures import SegDataSample

    for number, case in enumerate(plan["cases"]):
        segmentor = build(case)
        for index, (name, original) in enumerate(case["images"].items()):
            inputs = torch.from_numpy(images[name])
            for _ in range(1 if number or index else 2):  # the very first warms up
                sample = SegDataSample(metainfo=dict(ori_shape=tuple(original)))
                start = time.perf_counter()
                with torch.inference_mode():
                    (result,) = segmentor.test_step({"inputs": [inputs], "data_samples": [sample]})
                labels = result.pred_sem_seg.data[0].cpu().numpy()
                seconds = time.perf_counter() - start
            np.savez(
                folder / f"{which}-{number}-{index}.npz",
                labels=labels,
                probabilities=result.seg_logits.data.float().cpu().numpy(),
                seconds=seconds,
            )


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except Exception as error:  # the parent process shows one line
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")

"""What is loaded up to the first result, and what the compiler of PyTorch is afterwards."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from clearclip.backbones.clip_loading import outline
from clearclip.utils.open_clip_import import open_clip, without_compiler

#: Segments a scene, prints what is loaded, and then uses what the stand-ins had stood for.
FIRST_RESULT = """
import json, sys
from clearclip import ClearCLIP
from clearclip.miniature import BENCHMARK, CLASSES
model = ClearCLIP.from_pretrained("miniature")
labels = model.segment(BENCHMARK / "images" / "val" / "0022.png", list(CLASSES)).labels
loaded = sorted(name for name in sys.modules if name.count(".") <= 2)

import torch, torchvision, timm
from torchvision.ops.roi_align import is_compile_supported
boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]
pooled = torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, (2, 2)).flatten().tolist()
ran = timm.models.naflexvit.NaFlexVit(img_size=32, patch_size=16, embed_dim=32, depth=1, num_heads=2, num_classes=3)
shape = list(ran(torch.zeros(1, 3, 32, 32)).shape)
import torch._dynamo
print(json.dumps({
    "loaded": loaded,
    "classes": int(labels.max()) + 1,
    "pooled": pooled,
    "shape": shape,
    "supported": is_compile_supported("cpu"),
    "really": torch._dynamo.utils.is_compile_supported("cpu"),
    "file": torch._dynamo.__file__,
}))
"""
#: What a first result does not need.
UNNEEDED = ("torch._dynamo", "torch._inductor", "sympy", "torch.distributed.tensor", "mmengine", "mmseg", "pandas",
            "openpyxl", "rich", "matplotlib", "scipy")  # fmt: skip


def test_the_first_result_needs_no_compiler_and_no_spreadsheets():
    done = subprocess.run([sys.executable, "-c", FIRST_RESULT], capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout.splitlines()[-1])
    assert not set(facts["loaded"]) & set(UNNEEDED)
    assert facts["classes"] > 1
    # Afterwards torchvision, timm and the compiler are what they are without ClearCLIP.
    assert facts["pooled"] == [1.0] * 4
    assert facts["shape"] == [1, 3]
    assert facts["supported"] == facts["really"]
    assert facts["file"].endswith("__init__.py")


def test_stand_ins_leave_a_compiler_alone_that_is_there():
    import torch._dynamo

    before = sys.modules["torch._dynamo"]
    with without_compiler():
        assert sys.modules["torch._dynamo"] is before
    assert sys.modules["torch._dynamo"] is before and torch._dynamo is before


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-SigLIP", "EVA02-B-16"])
def test_an_outline_has_the_shapes_of_the_model(name):
    config = open_clip.get_model_config(name)
    config["vision_cfg"] |= {"layers": 2} if "layers" in config["vision_cfg"] else {}
    config["text_cfg"] = {"context_length": 4, "vocab_size": 8, "width": 64, "heads": 1, "layers": 1}
    with torch.device("meta"):
        vision = {**config["vision_cfg"], "timm_model_pretrained": False}
        model = open_clip.CustomTextCLIP(config["embed_dim"], vision, config["text_cfg"])
    shapes = {key: value.shape for key, value in model.visual.state_dict().items()}
    assert {key: value.shape for key, value in outline(config).visual.state_dict().items()} == shapes

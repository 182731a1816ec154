"""Half precision for what OpenCLIP does not convert itself: LayerNorm stays in fp32, as in the published runs."""

from __future__ import annotations

import torch
from open_clip.transformer import LayerNormFp32
from timm.layers import LayerNorm2d, LayerNormAct, LayerNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from clearclip.backbones.checkpoints import check_finite
from clearclip.weights import Weights

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def cast(tower: nn.Module, precision: str) -> nn.Module:
    """Convert a tower in place to "fp32", "fp16" or "bf16"; its LayerNorms keep fp32 weights and compute in fp32.

    Norms of convolutions take part as their own library has them: LayerNorms over channels are converted, BatchNorms
    stay in fp32.
    """
    if precision == "fp32":
        return tower.float()
    for parent in list(tower.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm) and not isinstance(child, LayerNorm2d | LayerNormAct | LayerNormAct2d):
                # Timm's and PyTorch's own LayerNorm would compute in the dtype of what comes in.
                options = dict(elementwise_affine=child.elementwise_affine, bias=child.bias is not None)
                norm = LayerNormFp32(child.normalized_shape, eps=child.eps, **options)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm.float())
    for module in tower.modules():
        parameters = list(module.parameters(recurse=False))
        if parameters and not isinstance(module, LayerNormFp32 | _BatchNorm):
            # Buffers beside parameters go with them; those of rotary embeddings stay exact.
            for tensor in (*parameters, *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(DTYPES[precision])
    return tower


def prepare(tower: nn.Module, device: torch.device, precision: str, weights: Weights) -> nn.Module:
    """A tower with these weights, ready to run: in evaluation mode, without gradients, in ``precision``, on a device.

    Raises:
        UserError: weights that are not finite.
    """
    # Before the cast: fp16 turns large weights into infinite ones, which is another fault.
    check_finite(tower, weights.label)
    return cast(tower, precision).eval().requires_grad_(False).to(device)

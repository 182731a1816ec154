"""The linear layers of a block, made ready once: with their weights as oneDNN's kernels read them, or in bf16.

oneDNN's own operators take a weight that was brought into their order before ("packed"), and add the activation or the
residual while a result is still in the cache. They are private to PyTorch: where they are missing, blocks are computed
without them (:mod:`clearclip.backbones.trunk`).

A packed copy takes as much memory as the weights. It is that of the weights as they were: when they change, it is made
again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from clearclip.utils.errors import UserError

#: The environment variable that says whether fp32 weights are packed: "yes" or "no". Otherwise a layer is timed once,
#: unless it is small.
CHOICE = "CLEARCLIP_PACKED_LINEARS"
#: QuickGELU(x) = x · sigmoid(1.702 x) = silu(1.702 x) / 1.702.
QUICK_GELU_FACTOR = 1.702
#: Rows of the layer that is timed, how often, and from which ratio on packing is worth its memory.
_TIMED_ROWS, _TIMED_REPEATS, _WORTHWHILE = 256, 5, 0.97
#: Layers with fewer weights are left alone: they gain little, and the bundled miniature's labels stay the same to the
#: last pixel on every machine. The smallest published ViTs, 384 wide, have more.
_SMALLEST_LAYER = 1 << 19
#: Every so many values of a weight are compared to notice that it was changed behind PyTorch's back (``weight.data``).
_SAMPLE_STEP = 1009


def operators_exist() -> bool:
    """Whether this PyTorch has oneDNN's packed linears."""
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


class FastLinear:
    """One linear layer, packed where oneDNN's operators exist and the layer is on a CPU.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,).
        dtype: what is multiplied, float32 or bfloat16; results have it, too.
        weight_factor, bias_factor: the layer computes x (weight_factor · weight)ᵀ + bias_factor · bias.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, dtype: torch.dtype, weight_factor: float = 1.0, bias_factor: float = 1.0
    ):
        self.weight = (weight.detach() * weight_factor).to(dtype)
        self.bias = (bias.detach() * bias_factor).to(dtype)
        self.is_packed = weight.device.type == "cpu" and operators_exist()
        if self.is_packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, _TIMED_ROWS)

    def __call__(self, rows: Tensor, activation: str = "none", approximate: str = "none") -> Tensor:
        """The layer's output, (rows, inputs) to (rows, outputs).

        Args:
            rows: what goes in.
            activation: "none", "swish" (SiLU) or "gelu".
            approximate: "none" or "tanh", for GELU.
        """
        if self.is_packed:
            algorithm = approximate if activation == "gelu" else ""
            return torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, activation, [], algorithm)
        outputs = F.linear(rows, self.weight, self.bias)
        if activation == "swish":
            return F.silu(outputs, inplace=True)
        if activation == "gelu":
            return F.gelu(outputs, approximate=approximate)
        return outputs

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        """``residual`` (rows, outputs) in its own dtype plus the layer's output of ``rows``."""
        if self.is_packed and residual.dtype == rows.dtype:
            return torch.ops.mkldnn._linear_pointwise.binary(rows, residual, self.weight, self.bias, "add")
        return residual + self(rows)


class FastBlock:
    """The four linear layers of one of OpenCLIP's plain blocks.

    Args:
        block: where the weights are.
        dtype: what is multiplied, float32 or bfloat16.
    """

    def __init__(self, block: ResidualAttentionBlock, dtype: torch.dtype):
        attention, mlp = block.attn, block.mlp
        # QuickGELU's two factors belong to the layers before and after it, so that one SiLU is left.
        factor = QUICK_GELU_FACTOR if type(mlp.gelu) is QuickGELU else 1.0
        self.activation = "swish" if type(mlp.gelu) is QuickGELU else "gelu"
        self.approximate = getattr(mlp.gelu, "approximate", "none")
        self.qkv = FastLinear(attention.in_proj_weight, attention.in_proj_bias, dtype)
        self.out = FastLinear(attention.out_proj.weight, attention.out_proj.bias, dtype)
        self.fc = FastLinear(mlp.c_fc.weight, mlp.c_fc.bias, dtype, factor, factor)
        self.proj = FastLinear(mlp.c_proj.weight, mlp.c_proj.bias, dtype, 1 / factor)

    def expand(self, rows: Tensor) -> Tensor:
        """The hidden values of the FFN after its activation, (rows, D) to (rows, 4 D)."""
        return self.fc(rows, self.activation, self.approximate)


#: A block → its fast layers and the state of the weights that they were made of.
_fast_blocks: WeakKeyDictionary[nn.Module, tuple[tuple, FastBlock]] = WeakKeyDictionary()
_lock = threading.Lock()


def fast_block(block: ResidualAttentionBlock, dtype: torch.dtype) -> FastBlock:
    """The fast layers of a block, made again where its weights have changed."""
    state = (dtype, *map(_weight_state, block.parameters()))
    with _lock:
        made = _fast_blocks.get(block)
    if made is not None and _same_state(made[0], state):
        return made[1]
    layers = FastBlock(block, dtype)
    with _lock:
        _fast_blocks[block] = (state, layers)
    return layers


#: A LayerNorm → the state of its weights, and its weight and bias in half precision, or None.
_half_norms: WeakKeyDictionary[nn.Module, tuple[tuple, tuple[Tensor, Tensor] | None]] = WeakKeyDictionary()


def half_norm(norm: nn.LayerNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of a LayerNorm in half precision; None where that would change them."""
    state = (dtype, *map(_weight_state, norm.parameters()))
    with _lock:
        made = _half_norms.get(norm)
    if made is not None and _same_state(made[0], state):
        return made[1]
    half = None
    if norm.weight is not None and norm.bias is not None:
        weight, bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
        # Waits for a GPU once per layer.
        if torch.equal(weight.float(), norm.weight) and torch.equal(bias.float(), norm.bias):
            half = (weight, bias)
    with _lock:
        _half_norms[norm] = (state, half)
    return half


def forget(block: nn.Module) -> None:
    """Free the memory of a block's fast layers."""
    with _lock:
        _fast_blocks.pop(block, None)


def _weight_state(weight: Tensor) -> tuple[Any, ...]:
    """What tells that a weight has changed: its memory, PyTorch's count of changes, and some of its values.

    Inference tensors have no such count. On a GPU the values are not looked at: that would wait for it.
    """
    version = 0 if weight.is_inference() else weight._version
    if weight.device.type != "cpu":
        return id(weight), version, None
    return weight.data_ptr(), version, weight.detach().flatten()[::_SAMPLE_STEP].clone()


def _same_state(before: tuple, now: tuple) -> bool:
    if before[0] != now[0] or len(before) != len(now):
        return False
    for (old_pointer, old_version, old_sample), (pointer, version, sample) in zip(before[1:], now[1:], strict=True):
        if (old_pointer, old_version) != (pointer, version):
            return False
        if sample is not None and not torch.equal(old_sample, sample):
            return False
    return True


def packing_is_faster(weight: Tensor) -> bool:
    """Whether fp32 layers of this shape run faster packed on this machine. One layer is timed once in a process.

    MKL, which PyTorch uses otherwise, is faster on some processors and slower on others.

    Raises:
        UserError: the environment variable :data:`CHOICE` is neither "yes" nor "no".
    """
    choice = os.environ.get(CHOICE)
    if choice not in (None, "", "yes", "no"):
        raise UserError(f"the environment variable {CHOICE} must be yes or no, not {choice!r}")
    if not operators_exist() or choice == "no":
        return False
    if choice == "yes":
        return True
    return weight.numel() >= _SMALLEST_LAYER and _timed(tuple(weight.shape), torch.get_num_threads())


@lru_cache(maxsize=16)
def _timed(shape: tuple[int, int], threads: int) -> bool:
    """Whether a packed layer of this shape, (outputs, inputs), is faster than a usual one with so many threads."""
    outputs, inputs = shape
    rows = torch.ones(_TIMED_ROWS, inputs)
    weight, bias = torch.ones(outputs, inputs), torch.ones(outputs)
    packed = FastLinear(weight, bias, torch.float32)
    usual_seconds, packed_seconds = [], []
    # In turn, so that other work on the machine slows both; the best of each counts.
    for _ in range(_TIMED_REPEATS):
        usual_seconds.append(_seconds(lambda: F.silu(torch.addmm(bias, rows, weight.T), inplace=True)))
        packed_seconds.append(_seconds(lambda: packed(rows, "swish")))
    return min(packed_seconds) < _WORTHWHILE * min(usual_seconds)


def _seconds(compute: Callable[[], Any]) -> float:
    start = time.perf_counter()
    compute()
    return time.perf_counter() - start

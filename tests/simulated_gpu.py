"""A GPU that computes nothing: tensors know their device, dtype and shape, and what is asked of them is counted.

PyTorch's ``FakeTensorMode`` raises where tensors of two devices meet and where a shape depends on values. On top of it
:class:`Counter` counts kernels, waits of the host and transfers between devices.
"""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
#: Operators that only look at memory in another way, or only make room.
_FREE = {
    "detach",
    "alias",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "lift_fresh",
    "_unsafe_view",
    "sym_size",
}
#: Operators that need a value on the host before the program goes on.
_WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
}


@dataclass
class Record:
    """What was asked of the GPU.

    Attributes:
        kernels: number of each operator that computes on the GPU.
        waits: operators for which the host waits.
        transfers: (from, to, shape) of tensors that change the device.
    """

    kernels: Tally = field(default_factory=Tally)
    waits: list[str] = field(default_factory=list)
    transfers: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)


class Counter(TorchDispatchMode):
    """Counts what tensors on the GPU are used for."""

    def __init__(self):
        super().__init__()
        self.record = Record()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_gpu = any(tensor.device.type == "cuda" for tensor in inputs)
        if name == "_local_scalar_dense" and isinstance(inputs[0], FakeTensor):
            # A value is needed, and any will do: all checks hold.
            if on_gpu:
                self.record.waits.append(name)
            return True if inputs[0].dtype == torch.bool else inputs[0].dtype.is_floating_point * 1.0
        if name == "equal":
            self.record.waits += [name] * on_gpu
            return True
        if func.namespace == "prim":
            return func(*args, **kwargs)
        with self:
            # In inference mode operators come undivided: their parts are what runs.
            outputs = func.decompose(*args, **kwargs)
        if outputs is not NotImplemented:
            return outputs
        outputs = func(*args, **kwargs)
        devices = {leaf.device.type for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)}
        if name in ("_to_copy", "copy_", "_pin_memory") and inputs:
            source = inputs[-1].device.type if name == "copy_" else inputs[0].device.type
            target = inputs[0].device.type if name == "copy_" else next(iter(devices))
            if source != target:
                self.record.transfers.append((source, target, tuple(inputs[-1].shape)))
                if target == "cpu" and not kwargs.get("non_blocking"):
                    self.record.waits.append("to cpu")
                return outputs
        if on_gpu and self._waits(name, args):
            self.record.waits.append(name)
        if "cuda" in devices and name not in _FREE and not func.is_view:
            self.record.kernels[name] += 1
        return outputs

    @staticmethod
    def _waits(name: str, args: Any) -> bool:
        if name in ("index", "index_put_"):
            indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
            return any(index.dtype in (torch.bool, torch.uint8) for index in indices)
        return name in _WAITING


class SimulatedStream:
    """Where work is queued. Waiting for an event of it is counted, and there is nothing to wait for.

    Args:
        record: where waits are counted.
    """

    def __init__(self, record: Record):
        self.record = record

    def record_event(self) -> SimulatedStream:
        return self

    def synchronize(self) -> None:
        self.record.waits.append("event")


def on_gpu(mode: FakeTensorMode, tensor: Tensor) -> FakeTensor:
    """A tensor of the same shape and dtype on the simulated GPU."""
    with mode:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)


def move_module(mode: FakeTensorMode, module: nn.Module) -> None:
    """Put parameters and buffers of a module on the simulated GPU."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                part._parameters[name] = nn.Parameter(on_gpu(mode, parameter), requires_grad=False)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = on_gpu(mode, buffer)

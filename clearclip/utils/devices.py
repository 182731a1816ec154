"""Where to compute, and in which precision."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from clearclip.utils.errors import UserError
from clearclip.utils.precisions import PRECISIONS

#: The precisions that need native bf16.
_WITH_BF16 = ("bf16", "mixed")


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """``device`` if given, else the best there is: the current GPU, Apple's, or the CPU.

    Raises:
        UserError: a device that does not exist here; says which do.
    """
    if device is None:
        # By its index: what is loaded later must not follow when somebody changes the current GPU.
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"unknown device {device!r}; choose cpu, cuda, cuda:N or mps") from error
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            raise UserError(f"device {chosen} is not here ({count} CUDA devices visible); use --device cpu")
    elif chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device mps is not here; use --device cpu")
    elif chosen.type not in ("cpu", "mps"):
        raise UserError(f"device {chosen} is not supported; choose cpu, cuda, cuda:N or mps")
    return chosen


def possible_precisions(device: torch.device) -> list[str]:
    """The precisions that a device computes natively."""
    if device.type == "cuda":
        # PyTorch also says yes where bf16 is only emulated.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["fp32", "fp16", *_WITH_BF16] if native else ["fp32", "fp16"]
    if device.type == "mps":
        return ["fp32", "fp16"]
    # PyTorch has no public name for what a CPU can do.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return ["fp32", *_WITH_BF16] if native else ["fp32"]


def choose_precision(precision: str, device: torch.device) -> str:
    """The precision to compute in: "fp32", "fp16", "bf16" or "mixed".

    "auto" is fp16 on CUDA, as published (LayerNorm stays in fp32), and fp32 elsewhere.

    Raises:
        UserError: an unknown precision, or one the device lacks; says which are possible.
    """
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}")
    if precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    possible = possible_precisions(device)
    if precision not in possible:
        raise UserError(f"precision {precision!r} is not native to this {device.type}; possible: {', '.join(possible)}")
    return precision


class _TF32Setting:
    """PyTorch's setting of TF32, which all threads of a process share, and how many of them want it off now."""

    lock = threading.Lock()
    users = 0
    values_to_restore: tuple[Any, ...] = ()


@contextmanager
def without_tf32() -> Iterator[None]:
    """CUDA computes fp32 in fp32, not in TF32. Nothing else that a user has set is touched.

    Several threads may be in such a block: the first one changes the setting, and the last one restores it.
    """
    off: str | bool
    backends, name, off = (torch.backends.cuda.matmul, torch.backends.cudnn.conv), "fp32_precision", "ieee"
    if not hasattr(backends[0], name):  # before PyTorch 2.9
        backends, name, off = (torch.backends.cuda.matmul, torch.backends.cudnn), "allow_tf32", False
    setting = _TF32Setting
    # Counted, since a thread that left first would otherwise switch TF32 on under those that still compute.
    with setting.lock:
        if setting.users == 0:
            setting.values_to_restore = tuple(getattr(backend, name) for backend in backends)
            for backend in backends:
                setattr(backend, name, off)
        setting.users += 1
    try:
        yield
    finally:
        with setting.lock:
            setting.users -= 1
            if setting.users == 0:
                for backend, value in zip(backends, setting.values_to_restore, strict=True):
                    setattr(backend, name, value)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device; for a GPU from pinned memory, so that the host need not wait."""
    if tensor.device.type == "cpu" and device.type == "cuda" and torch.cuda.is_available():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Download:
    """A copy of a tensor on the host, which may still be on its way.

    Args:
        tensor: on any device; a GPU is not waited for here.
    """

    def __init__(self, tensor: Tensor):
        from_cuda = tensor.device.type == "cuda"
        # PyTorch takes pinned memory for a copy that does not wait. Only CUDA has an event that tells when it is there.
        self._copy = tensor.to("cpu", non_blocking=from_cuda)
        self._arrival = torch.cuda.current_stream(tensor.device).record_event() if from_cuda else None

    def wait(self) -> Tensor:
        """The copy, as soon as it has arrived. What the GPU was asked for afterwards is not waited for."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._copy


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device has no memory left; MPS has no error of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)

"""Where to compute, and in which precision."""

from __future__ import annotations

import torch

from clearclip.errors import UserError

PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """``device`` if given, else MMEngine's choice (CUDA, MPS, CPU; each process its own GPU).

    Raises:
        UserError: a device that does not exist here; says which do.
    """
    if device is None:
        from mmengine.device import get_device

        device = get_device()
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"unknown device {device!r}; choose cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"device {device} is not here ({count} CUDA devices visible); use --device cpu")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device mps is not here; use --device cpu")
    elif device.type not in ("cpu", "mps"):
        raise UserError(f"device {device} is not supported; choose cpu, cuda, cuda:N or mps")
    return device


def possible_precisions(device: torch.device) -> list[str]:
    """The precisions that a device computes natively."""
    if device.type == "cuda":
        return ["fp32", "fp16"] + (["bf16"] if torch.cuda.is_bf16_supported(including_emulation=False) else [])
    if device.type == "mps":
        return ["fp32", "fp16"]
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return ["fp32"] + (["bf16"] if native else [])


def choose_precision(precision: str, device: torch.device) -> str:
    """ "fp32", "fp16" or "bf16"; "auto" is fp16 on CUDA, as published (LayerNorm stays in fp32), and fp32 elsewhere.

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

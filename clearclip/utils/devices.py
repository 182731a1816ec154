"""Where to compute, and in which precision."""

from __future__ import annotations

import torch

from clearclip.utils.errors import UserError

PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """``device`` if given, else the best there is: the current GPU, Apple's, or the CPU.

    Raises:
        UserError: a device that does not exist here; says which do.
    """
    if device is None:
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

"""Names of the table's rows, as settings of the switches in :mod:`clearclip.last_block` and :mod:`clearclip.gem`."""

from __future__ import annotations

import warnings

from clearclip.errors import UserError
from clearclip.gem import GEM
from clearclip.image_encoder import Method
from clearclip.last_block import LastBlock

#: The attention of each ``model_type``.
MODEL_TYPES = {"ClearCLIP": "qq", "vanilla": "qk", "MaskCLIP": "identity", "SCLIP": "qq+kk", "GEM": "gem"}


def choose_method(
    model_type: str = "ClearCLIP",
    ignore_residual: bool = True,
    attention: str | None = None,
    residual: bool | None = None,
    ffn: bool | None = None,
    alpha: float = 1.0,
) -> Method:
    """The method of a row of the paper's table, or of an ablation.

    Args:
        model_type: a key of :data:`MODEL_TYPES`.
        ignore_residual: True drops residual and FFN together ("+ ClearCLIP"), False keeps both.
        attention, residual, ffn: override what the two above say, each on its own.
        alpha: factor of X_attn.

    Raises:
        UserError: an unknown name, or a combination that does not exist; says why.
    """
    if model_type not in MODEL_TYPES:
        raise UserError(f"unknown model_type {model_type!r}; choose from {', '.join(MODEL_TYPES)}")
    for name, value in (("ignore_residual", ignore_residual), ("residual", residual), ("ffn", ffn)):
        if not isinstance(value, bool) and not (value is None and name != "ignore_residual"):
            raise UserError(f"{name} must be True or False, not {value!r}")
    keep = not ignore_residual
    if model_type == "GEM" and attention is None:
        if ffn:
            raise UserError("GEM's stream passes no FFN, so ffn=True does not exist for it; leave ffn out")
        if alpha != 1:
            raise UserError(f"alpha={alpha} does not exist for GEM, which gathers six blocks; leave alpha out")
        return GEM(residual=keep if residual is None else residual)
    if model_type == "vanilla" and ignore_residual and attention is residual is ffn is None:
        warnings.warn(
            "model_type='vanilla' with ignore_residual=True is no row of the paper's table (q-k attention without "
            "residual and FFN); use model_type='ClearCLIP', or ignore_residual=False for CLIP",
            stacklevel=2,
        )
    return LastBlock(
        attention=attention or MODEL_TYPES[model_type],
        residual=keep if residual is None else residual,
        ffn=keep if ffn is None else ffn,
        alpha=alpha,
    )

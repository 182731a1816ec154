"""The names of the precisions that a model computes in, as plain data: no PyTorch is needed to list them."""

#: "auto" is fp16 on CUDA and fp32 elsewhere: see :func:`clearclip.utils.devices.choose_precision`. "mixed" has bf16 in
#: the matrix products of the image tower's unchanged blocks, and fp32 in all else.
PRECISIONS = ("auto", "fp32", "fp16", "bf16", "mixed")


def precision_of_weights(precision: str) -> str:
    """What the weights of a model are kept in, and everything but the unchanged blocks is computed in."""
    # LayerNorm and the residual stream stay in fp32 there, and with them the weights.
    if precision == "mixed":
        return "fp32"
    return precision

"""The names of the precisions that a model computes in, as plain data: no PyTorch is needed to list them."""

#: "auto" is fp16 on CUDA and fp32 elsewhere: see :func:`clearclip.utils.devices.choose_precision`.
PRECISIONS = ("auto", "fp32", "fp16", "bf16")

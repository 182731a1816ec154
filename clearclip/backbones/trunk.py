"""OpenCLIP's unchanged blocks, computed faster on a CPU: same weights, same result, nothing in OpenCLIP is changed.

Attention runs fused instead of through its whole matrix of weights. QuickGELU, x · sigmoid(1.702 x), is silu(1.702 x) /
1.702: both factors belong to the matrix products before and after it, so one pass in place is left of three. Residuals
are added by the products, too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn


def run_block(block: nn.Module, tokens: Tensor) -> Tensor:
    """A block's output, (B, T, D) to the same: computed here where the block is a plain one, else by itself."""
    return _run(block, tokens) if is_plain(block, tokens) else block(tokens)


def is_plain(block: nn.Module, tokens: Tensor) -> bool:
    """Whether a block is OpenCLIP's plain one in fp32 on a CPU, with nothing hooked into it."""
    return (
        type(block) is ResidualAttentionBlock
        and block.attn.batch_first
        and type(block.ls_1) is type(block.ls_2) is nn.Identity
        and type(block.mlp.gelu) in (QuickGELU, nn.GELU)
        and tokens.device.type == "cpu"
        and all(each.dtype == torch.float32 for each in (tokens, *block.parameters()))
        and not any(module._forward_hooks or module._forward_pre_hooks for module in block.modules())
    )


def _run(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    attention, fc, proj = block.attn, block.mlp.c_fc, block.mlp.c_proj
    x = tokens.flatten(0, 1)
    qkv = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    gathered = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).flatten(0, 1)
    x = torch.addmm(x, gathered, attention.out_proj.weight.T).add_(attention.out_proj.bias)
    factor = 1.702 if type(block.mlp.gelu) is QuickGELU else 1
    hidden = torch.addmm(fc.bias, block.ln_2(x), fc.weight.T, beta=factor, alpha=factor)
    if factor == 1:
        torch.ops.aten.gelu_(hidden, approximate=block.mlp.gelu.approximate)
    else:
        F.silu(hidden, inplace=True)
    return torch.addmm(x, hidden, proj.weight.T, alpha=1 / factor).add_(proj.bias).view_as(tokens)

"""OpenCLIP's unchanged blocks, computed faster: same weights, and nothing in OpenCLIP is changed.

In fp32 on a CPU attention runs fused instead of through its whole matrix of weights, QuickGELU as one pass, and the
matrix products by MKL or oneDNN, whichever is faster here (:mod:`clearclip.backbones.packed_linears`). Results differ
in the last bits.

With ``precision="mixed"`` linear layers and attention are computed in bf16. LayerNorm and the residual stream stay in
fp32, and so does everything that a method computes after the trunk.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from open_clip.transformer import LayerNormFp32, QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from clearclip.backbones.packed_linears import (
    QUICK_GELU_FACTOR,
    FastBlock,
    fast_block,
    forget,
    half_norm,
    packing_is_faster,
)


def run_block(block: nn.Module, tokens: Tensor, mixed: bool = False) -> Tensor:
    """A block's output, (B, T, D) to the same: computed here where the block is a plain one, else by itself.

    Args:
        block: any block of a transformer.
        tokens: what goes in.
        mixed: whether matrix products are computed in bf16; the block must be a plain one in fp32.
    """
    if not is_plain(block, tokens):
        return block(tokens)
    if mixed:
        return _run_mixed(block, tokens, fast_block(block, torch.bfloat16))
    if tokens.device.type != "cpu":
        # A model that has moved to a GPU keeps no second copy of its weights on the host.
        forget(block)
        return _run_on_gpu(block, tokens)
    # Packed weights lie outside of what torch.export and torch.compile can follow.
    if not torch.compiler.is_compiling() and packing_is_faster(block.mlp.c_fc.weight):
        return _run_packed(block, tokens, fast_block(block, torch.float32))
    return _run_usual(block, tokens)


def is_plain(block: nn.Module, tokens: Tensor) -> bool:
    """Whether a block is OpenCLIP's plain one with nothing hooked into it; in fp32, unless it is on a GPU."""
    matrices = (block.attn.in_proj_weight, block.mlp.c_fc.weight) if type(block) is ResidualAttentionBlock else ()
    on_gpu = tokens.device.type == "cuda" and all(matrix.dtype == tokens.dtype for matrix in matrices)
    return (
        type(block) is ResidualAttentionBlock
        and block.attn.batch_first
        and type(block.ls_1) is type(block.ls_2) is nn.Identity
        and type(block.mlp.gelu) in (QuickGELU, nn.GELU)
        and (on_gpu or all(tensor.dtype == torch.float32 for tensor in (tokens, *block.parameters())))
        # Whoever has hooked a module wants it to be called.
        and not any(module._forward_hooks or module._forward_pre_hooks for module in block.modules())
    )


def _run_packed(block: ResidualAttentionBlock, tokens: Tensor, layers: FastBlock) -> Tensor:
    # All tokens of all windows are rows of one matrix: one product in place of one for each window.
    rows = tokens.flatten(0, 1)
    qkv = layers.qkv(block.ln_1(rows)).view(*tokens.shape[:2], -1)
    rows = layers.out.add_to(rows, _attend(qkv, block.attn.num_heads))
    rows = layers.proj.add_to(rows, layers.expand(block.ln_2(rows)))
    return rows.view_as(tokens)


def _run_mixed(block: ResidualAttentionBlock, tokens: Tensor, layers: FastBlock) -> Tensor:
    rows = tokens.flatten(0, 1)
    qkv = layers.qkv(block.ln_1(rows).bfloat16()).view(*tokens.shape[:2], -1)
    attend = _attend_by_products if tokens.device.type == "cpu" else _attend
    rows = layers.out.add_to(rows, attend(qkv, block.attn.num_heads))
    rows = layers.proj.add_to(rows, layers.expand(block.ln_2(rows).bfloat16()))
    return rows.view_as(tokens)


def _run_usual(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    attention, fc, proj = block.attn, block.mlp.c_fc, block.mlp.c_proj
    rows = tokens.flatten(0, 1)
    qkv = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    gathered = _attend(qkv, attention.num_heads)
    rows = torch.addmm(rows, gathered, attention.out_proj.weight.T).add_(attention.out_proj.bias)
    # QuickGELU's two factors belong to the matrix products before and after it: one pass is left of three.
    factor = QUICK_GELU_FACTOR if type(block.mlp.gelu) is QuickGELU else 1
    hidden = torch.addmm(fc.bias, block.ln_2(rows), fc.weight.T, beta=factor, alpha=factor)
    if factor == 1:
        torch.ops.aten.gelu_(hidden, approximate=block.mlp.gelu.approximate)
    else:
        F.silu(hidden, inplace=True)
    return torch.addmm(rows, hidden, proj.weight.T, alpha=1 / factor).add_(proj.bias).view_as(tokens)


def _run_on_gpu(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """The block in few kernels. QuickGELU's factors belong to the products, which add up in fp32 whatever the dtype, so
    in half precision its values are rounded once in place of three times.
    """
    fc, proj = block.mlp.c_fc, block.mlp.c_proj
    factor = QUICK_GELU_FACTOR if type(block.mlp.gelu) is QuickGELU else 1
    rows = (tokens + block.attention(q_x=apply_layer_norm(block.ln_1, tokens))).flatten(0, 1)
    hidden = torch.addmm(fc.bias, apply_layer_norm(block.ln_2, rows), fc.weight.T, beta=factor, alpha=factor)
    if factor == 1:
        torch.ops.aten.gelu_(hidden, approximate=block.mlp.gelu.approximate)
    else:
        F.silu(hidden, inplace=True)
    return torch.addmm(rows, hidden, proj.weight.T, alpha=1 / factor).add_(proj.bias).view_as(tokens)


def apply_layer_norm(norm: nn.Module, tokens: Tensor) -> Tensor:
    """LayerNorm in fp32; in half precision on a GPU by one kernel in place of OpenCLIP's three.

    That kernel computes in fp32 as well, but takes weights of half precision: only those that these represent exactly,
    as OpenAI's are.
    """
    if type(norm) is LayerNormFp32 and tokens.device.type == "cuda" and tokens.dtype != torch.float32:
        half = half_norm(norm, tokens.dtype)
        if half is not None:
            return F.layer_norm(tokens, norm.normalized_shape, *half, norm.eps)
    return norm(tokens)


def _heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v (B, heads, T, D / heads) of what the first linear layer gives, (B, T, 3 D)."""
    return qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def _attend(qkv: Tensor, heads: int) -> Tensor:
    """What attention gathers, (B, T, 3 D) to (B · T, D), by PyTorch's fused kernel."""
    gathered = F.scaled_dot_product_attention(*_heads(qkv, heads))
    return gathered.transpose(1, 2).flatten(2).flatten(0, 1)


def _attend_by_products(qkv: Tensor, heads: int) -> Tensor:
    """The same by matrix products, which in bf16 is faster on a CPU than the fused kernel."""
    gathered = []
    # Window by window, so that one matrix of weights is in memory at a time.
    for q, k, v in zip(*_heads(qkv, heads), strict=True):
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
        gathered.append((scores.softmax(dim=-1) @ v).transpose(0, 1).flatten(1))
    return torch.cat(gathered)

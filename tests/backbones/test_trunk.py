"""Unchanged blocks that run faster give what they give themselves; how threads wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from tiny import named_weights
from torch import nn

from clearclip.backbones.packed_linears import CHOICE, operators_exist
from clearclip.backbones.trunk import run_block


def _block(activation: type[nn.Module] = QuickGELU, **options) -> ResidualAttentionBlock:
    block = ResidualAttentionBlock(64, 4, act_layer=activation, **options).eval().requires_grad_(False)
    block.load_state_dict(named_weights(block.state_dict()))
    return block


def _tokens(**options) -> torch.Tensor:
    return torch.randn(3, 50, 64, generator=torch.Generator().manual_seed(0)).to(**options)


@pytest.mark.parametrize("packed", ["yes", "no"])
@pytest.mark.parametrize("activation", [QuickGELU, nn.GELU, lambda: nn.GELU(approximate="tanh")])
@torch.inference_mode()
def test_a_plain_block_is_computed_here_and_equal(activation, packed, monkeypatch):
    monkeypatch.setenv(CHOICE, packed)
    block, tokens = _block(activation), _tokens()
    wanted, before = block(tokens), tokens.clone()
    monkeypatch.setattr(ResidualAttentionBlock, "forward", None)
    # Tokens of several windows that are views into others, as a method may hand them on.
    assert (run_block(block, tokens) - wanted).abs().max() < 1e-6 * wanted.abs().max()
    torch.testing.assert_close(run_block(block, tokens[:, 10:]), run_block(block, tokens[:, 10:].clone()))
    assert torch.equal(tokens, before)


@pytest.mark.parametrize("case", ["LayerScale", "other activation", "half precision", "a hook", "a hook inside"])
@torch.inference_mode()
def test_other_blocks_run_themselves(case):
    seen = []
    block, tokens = _block(nn.ReLU if case == "other activation" else QuickGELU), _tokens()
    if case == "LayerScale":
        block = _block(ls_init_value=0.1)
    elif case == "half precision":
        block, tokens = block.bfloat16(), tokens.bfloat16()
    elif case == "a hook":
        block.register_forward_pre_hook(lambda *_: seen.append(1))
    elif case == "a hook inside":
        block.ln_2.register_forward_hook(lambda *_: seen.append(1))
    assert torch.equal(run_block(block, tokens), block(tokens))
    assert len(seen) == 2 * ("hook" in case)


@pytest.mark.parametrize("activation", [QuickGELU, nn.GELU])
@pytest.mark.parametrize("operators", [True, False])
@torch.inference_mode()
def test_mixed_precision_keeps_the_residual_stream(activation, operators, monkeypatch):
    """Closer to fp32 than all of the block in bf16, with oneDNN's own operators and without."""
    if operators and not operators_exist():
        pytest.skip("this PyTorch has no packed linears")
    monkeypatch.setattr("clearclip.backbones.packed_linears.operators_exist", lambda: operators)
    # As after some blocks, the residual stream is larger than what one block adds to it.
    block, tokens = _block(activation), 16 * _tokens()
    exact = block(tokens)
    mixed = run_block(block, tokens, mixed=True)
    assert mixed.dtype == torch.float32
    mixed_error = (mixed - exact).abs().max()
    bf16_error = (block.bfloat16()(tokens.bfloat16()).float() - exact).abs().max()
    assert 0 < mixed_error < bf16_error / 2


@pytest.mark.parametrize("chosen", ["", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_how_threads_wait_is_set_before_torch_is_loaded_unless_someone_has_chosen(chosen):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    code = f"""
import os, sys
sys.modules["torch"] = None
import clearclip
print(*[name for name in {names} if name in os.environ])
"""
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {chosen: "7"} if chosen else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ([chosen] if chosen else ["GOMP_SPINCOUNT", "KMP_BLOCKTIME"])

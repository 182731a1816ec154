"""Packed copies of weights: when they are made, made again and freed, and who chooses them."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from tiny import named_weights

from clearclip import UserError
from clearclip.backbones import packed_linears
from clearclip.backbones.packed_linears import CHOICE, FastLinear, fast_block, operators_exist, packing_is_faster
from clearclip.backbones.trunk import run_block

needs_operators = pytest.mark.skipif(not operators_exist(), reason="this PyTorch has no packed linears")


def _block() -> ResidualAttentionBlock:
    block = ResidualAttentionBlock(64, 4, act_layer=QuickGELU).eval().requires_grad_(False)
    block.load_state_dict(named_weights(block.state_dict()))
    return block


def _tokens(rows: int = 50) -> torch.Tensor:
    return torch.randn(3, rows, 64, generator=torch.Generator().manual_seed(0))


def _load(block):
    block.load_state_dict({name: 2 * value for name, value in block.state_dict().items()})


def _assign(block):
    block.mlp.c_fc.weight.data = block.mlp.c_fc.weight.data * 2


def _merge(block):
    """As adapters are merged: PyTorch does not count what happens to ``data``."""
    block.mlp.c_proj.weight.data += 0.01


def _replace(block):
    block.attn.out_proj.bias = torch.nn.Parameter(torch.ones(64), requires_grad=False)


@needs_operators
@pytest.mark.parametrize("change", [_load, _assign, _merge, _replace])
@torch.no_grad()
def test_changed_weights_are_packed_again(change, monkeypatch):
    monkeypatch.setenv(CHOICE, "yes")
    block, tokens = _block(), _tokens()
    before = run_block(block, tokens)
    change(block)
    after = run_block(block, tokens)
    expected = block(tokens)
    assert (after - expected).abs().max() < 1e-6 * expected.abs().max()
    assert not torch.allclose(after, before)


@needs_operators
@torch.inference_mode()
def test_one_copy_serves_any_number_of_rows(monkeypatch):
    monkeypatch.setenv(CHOICE, "yes")
    block = _block()
    layers = fast_block(block, torch.float32)
    for rows in (1, 50, 333):
        expected = block(_tokens(rows))
        assert (run_block(block, _tokens(rows)) - expected).abs().max() < 1e-6 * expected.abs().max()
    assert fast_block(block, torch.float32) is layers


@torch.inference_mode()
def test_the_copies_go_with_their_block():
    block = _block()
    layers = weakref.ref(fast_block(block, torch.bfloat16))
    assert layers() is not None
    del block
    gc.collect()
    assert layers() is None


def test_who_chooses(monkeypatch):
    weight, small = torch.ones(1024, 512), torch.ones(1024, 256)
    timed = []
    monkeypatch.setattr(packed_linears, "operators_exist", lambda: True)
    monkeypatch.setattr(packed_linears, "_timed", lambda *arguments: timed.append(arguments) or True)
    monkeypatch.setenv(CHOICE, "no")
    assert not packing_is_faster(weight)
    monkeypatch.setenv(CHOICE, "yes")
    assert packing_is_faster(weight) and not timed
    monkeypatch.delenv(CHOICE)
    assert packing_is_faster(weight) and timed == [((1024, 512), torch.get_num_threads())]
    assert not packing_is_faster(small) and len(timed) == 1
    monkeypatch.setattr(packed_linears, "operators_exist", lambda: False)
    assert not packing_is_faster(weight)
    monkeypatch.setenv(CHOICE, "maybe")
    with pytest.raises(UserError, match=CHOICE):
        packing_is_faster(weight)


@needs_operators
@pytest.mark.parametrize(("packed", "faster"), [(3.0, False), (0.5, True)])
def test_the_timing_decides(packed, faster, monkeypatch):
    seconds = iter([1.0, packed] * 5)
    monkeypatch.setattr(packed_linears, "_seconds", lambda compute: next(seconds))
    packed_linears._timed.cache_clear()
    assert packed_linears._timed((8, 4), 1) is faster
    packed_linears._timed.cache_clear()


@pytest.mark.parametrize("operators", [True, False])
@pytest.mark.parametrize(
    ("activation", "approximate"), [("none", "none"), ("swish", "none"), ("gelu", "none"), ("gelu", "tanh")]
)
def test_a_layer_is_its_formula(activation, approximate, operators, monkeypatch):
    if operators and not operators_exist():
        pytest.skip("this PyTorch has no packed linears")
    monkeypatch.setattr(packed_linears, "operators_exist", lambda: operators)
    generator = torch.Generator().manual_seed(1)
    rows, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((5, 8), (16, 8), (16,)))
    exact = 3 * (rows.double() @ weight.double().T) + 2 * bias.double()
    residual = torch.randn(5, 16, generator=generator)
    layer = FastLinear(weight, bias, torch.float32, weight_factor=3, bias_factor=2)
    torch.testing.assert_close(layer.add_to(residual, rows), (exact + residual).float(), rtol=1e-5, atol=1e-5)
    if activation == "swish":
        exact = exact * torch.sigmoid(exact)
    elif activation == "gelu":
        exact = torch.nn.functional.gelu(exact, approximate=approximate)
    torch.testing.assert_close(layer(rows, activation, approximate), exact.float(), rtol=1e-5, atol=1e-5)

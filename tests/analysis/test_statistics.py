"""Norm, entropy and channels of known tensors, and statistics of a model against plain loops."""

import math

import numpy as np
import pytest
import torch

from clearclip import ClearCLIP
from clearclip.analysis.statistics import collect, frobenius_norm, normalized_entropy


@pytest.fixture(scope="module")
def tiny(tiny_name):
    return ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=32, short_side=None)


def test_norm_and_entropy_of_known_tensors():
    x = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert frobenius_norm(x).tolist() == [5.0, 2.0]
    one_hot = torch.zeros(1, 197, 768, dtype=torch.float64)
    one_hot[0, 5, 7] = 200.0
    assert normalized_entropy(torch.full((1, 197, 768), 1e4, dtype=torch.float64)).item() == pytest.approx(1, abs=1e-12)
    assert 0 <= normalized_entropy(one_hot).item() < 1e-12
    # softmax of (ln 1, ln 2, ln 5, ln 8) is (1, 2, 5, 8) / 16.
    x = torch.tensor([[[0.0, math.log(2)], [math.log(5), math.log(8)]]], dtype=torch.float64)
    expected = -sum(n / 16 * math.log(n / 16) for n in (1, 2, 5, 8)) / math.log(4)
    assert normalized_entropy(x).item() == pytest.approx(expected, abs=1e-14)


def test_statistics_are_those_of_the_blocks_inputs_and_attentions(tiny):
    """Each block's parts, computed one after the other with torch's own attention; batches make no difference."""
    encoder, images = tiny.image_encoder, torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    found = collect(encoder, [images[:1], images[1:4], images[4:]])
    by_block = found["norms"].merge(found["entropy"]).set_index(["part", "block"])
    assert (by_block["images"] == 5).all()
    with torch.no_grad():
        x = encoder.tokens(images, "scale_factor")
        for number, block in enumerate(encoder.blocks, start=1):
            normed = block.ln_1(x)
            x_attn = block.attn(normed, normed, normed, need_weights=True)[0]
            parts = {"X_res": x, "X_attn": x_attn, "X_sum": x + x_attn}
            parts = {part: tensor.double().numpy() for part, tensor in parts.items()}
            for part, array in parts.items():
                row = by_block.loc[part, number]
                norm = [math.sqrt((image**2).sum()) for image in array]
                np.testing.assert_allclose(row["norm"], np.mean(norm), rtol=1e-4)
                np.testing.assert_allclose(row["norm_std"], np.std(norm), rtol=1e-2, atol=1e-5)
                weights = np.exp(array - array.max(axis=(1, 2), keepdims=True))
                weights /= weights.sum(axis=(1, 2), keepdims=True)
                entropy = -(weights * np.log(weights)).sum(axis=(1, 2)) / np.log(array[0].size)
                np.testing.assert_allclose(row["entropy"], entropy.mean(), rtol=1e-4)
                np.testing.assert_allclose(row["entropy_std"], entropy.std(), rtol=1e-2, atol=1e-6)
            x = x + x_attn
            x = x + block.mlp(block.ln_2(x))
    for part, table in found["channels"].groupby("part"):
        mean = parts[part].mean(axis=(0, 1))
        np.testing.assert_allclose(mean[table["channel"]], table["mean"], rtol=1e-3, atol=1e-4)
        magnitudes = sorted(map(abs, mean), reverse=True)
        np.testing.assert_allclose(table["share_held"], np.cumsum(magnitudes) / sum(magnitudes), rtol=1e-3)
        assert table["rank"].tolist() == list(range(1, len(mean) + 1))

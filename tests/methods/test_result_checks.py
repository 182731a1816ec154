"""What a method of one's own returns by mistake: one line that names the method and what is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from clearclip import ClearCLIP, Method, UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
#: Of what is returned for tokens of 16 patches and the class token: what the line says of it.
TOKENS = {
    "a tuple": (lambda x: (x, x), "not tuple"),
    "nothing": (lambda x: None, "not NoneType"),
    "an array": (lambda x: x.numpy(), "not ndarray"),
    "patches without the class token": (lambda x: x[:, 1:], r"not one of shape \(1, 16, 32\)"),
    "a width of its own": (lambda x: x[..., :8], r"not one of shape \(1, 17, 8\)"),
}


@pytest.fixture(scope="module")
def model(quick_name: str) -> ClearCLIP:
    return ClearCLIP.from_pretrained(quick_name, device="cpu", slide_crop=64, slide_stride=64, short_side=None)


@dataclass(frozen=True)
class Faulty(Method):
    """Returns what it is told to."""

    name = "Faulty"
    tokens: object = None
    scored: object = None
    joined: object = None

    def __call__(self, blocks, x, context):
        return self.tokens(x) if self.tokens else x

    def scores(self, features, context):
        scores = super().scores(features, context)
        return self.scored(scores) if self.scored else scores

    def join(self, windows, grid, context):
        return self.joined(windows) if self.joined else super().join(windows, grid, context)


@pytest.mark.parametrize("mistake", TOKENS)
def test_tokens(model: ClearCLIP, mistake: str) -> None:
    returned, message = TOKENS[mistake]
    with pytest.raises(UserError, match=rf"^Faulty .*must return tokens .* of shape \(1, 17, 32\), {message}") as error:
        model.compare(IMAGE, ["sky", "tree"], [Faulty(tokens=returned)])
    assert "\n" not in str(error.value) and "docs/your_own_method.md" in str(error.value)


@pytest.mark.parametrize(
    "returned", [lambda scores: scores[..., :1], lambda scores: scores[0], lambda scores: [scores]]
)
def test_scores(model: ClearCLIP, returned) -> None:
    with pytest.raises(UserError, match=r"^scores\(\) of Faulty .* shape \(1, rows, columns, 2 words\), not"):
        model.compare(IMAGE, ["sky", "tree"], [Faulty(scored=returned)])


def test_joined_windows(model: ClearCLIP) -> None:
    with pytest.raises(UserError, match=r"^join\(\) of Faulty .* must return a ScoreMap.*not one of shape"):
        model.compare(IMAGE, ["sky", "tree"], [Faulty(joined=lambda windows: windows)])


def test_what_is_right_passes(model: ClearCLIP) -> None:
    (result,) = model.compare(IMAGE, ["sky", "tree"], [Faulty()]).values()
    assert result.labels.shape == (64, 64)

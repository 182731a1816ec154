"""Methods of one's own that write to everything they can reach: ours never see it, or nothing is recorded."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import clearclip.windows.readout
from clearclip import METHODS, UserError
from clearclip.commands.command_line import import_file
from clearclip.evaluation.run import evaluate

METHOD = """
from dataclasses import dataclass
import itertools
import torch
import clearclip.windows.readout
from clearclip import METHODS, Method

def double(*arguments):
    return None

calls = itertools.count()

@METHODS.register_module()
@dataclass(frozen=True)
class Writer(Method):
    needs = ("text", "image")

    def __call__(self, blocks, x, context):
        {body}
        return blocks[-1].merge(blocks[-1].project(blocks[-1].ln_1(x), "v"))
"""
IMAGES = 3


@pytest.fixture(scope="module")
def clearclip_confusion(tmp_path_factory) -> np.ndarray:
    """ClearCLIP's confusion matrix where no other method is beside it."""
    return run(tmp_path_factory.mktemp("alone"), ["ClearCLIP"])[0].scores.confusion


def run(folder, methods, **options):
    options = {"device": "cpu", "workers": 0, "limit": IMAGES, **options}
    return evaluate("cfg_miniature.py", folder / "work", methods=methods, **options)


@pytest.fixture
def writer(tmp_path):
    """Registers a method with some lines in it; it is forgotten afterwards."""

    def register(body: str):
        file = tmp_path / "writer_of_test.py"
        file.write_text(METHOD.format(body=body))
        import_file(file)
        return file

    yield register
    METHODS.pop("Writer", None)
    sys.modules.pop("writer_of_test", None)


@pytest.mark.parametrize(
    "body",
    [
        "x += 1",
        "context.text[:] = 0",
        "context.image.zero_()",
        "[tokens.zero_() for tokens in context.inputs.values()]",
        "x.mul_(-1)",
        "torch.manual_seed(7); x = x + torch.randn_like(x)",
    ],
)
@pytest.mark.parametrize("methods", [["Writer", "ClearCLIP"], ["ClearCLIP", "Writer"]])
def test_ours_do_not_see_what_a_method_writes(body, methods, writer, tmp_path, clearclip_confusion):
    evaluations = run(tmp_path, methods, imports=[writer(body)])
    assert [evaluation.method for evaluation in evaluations] == methods
    by_method = {evaluation.method: evaluation for evaluation in evaluations}
    assert np.array_equal(by_method["ClearCLIP"].scores.confusion, clearclip_confusion)
    assert "own code was imported: writer_of_test.py" in by_method["ClearCLIP"].not_published_because
    # It has a row of its own, where that is no reason.
    assert not any("own code" in reason for reason in by_method["Writer"].not_published_because)


@pytest.mark.parametrize(
    "body",
    [
        "blocks[-1].ln_1.weight.mul_(1.01)",
        "next(context.embed.__self__.parameters()).data.flatten()[0] += 1e-3",
        "context.embed.__self__.blocks[-1].mlp = torch.nn.Identity()",
    ],
)
def test_changed_weights_record_nothing(body, writer, tmp_path):
    file = writer(body)
    with pytest.raises(UserError, match=r"weights or words are not what they were .*Writer.*nothing was recorded"):
        run(tmp_path, ["Writer", "ClearCLIP"], imports=[file])


# What a method does at its first image → a word of the error.
REPLACING_CODE = {
    "context.embed.__self__.register_forward_hook(lambda *_: None)": "hooks of PyTorch",
    "torch.nn.modules.module.register_module_forward_hook(double)": "all modules have hooks",
    "e = context.embed.__self__; e.forward = lambda *a, **k: type(e).forward(e, *a, **k)": "a function of",
    "clearclip.windows.readout.Readout.probabilities = double": "code was replaced",
    "torch.nn.functional.softmax.__defaults__ = (1,) * 4": "code was replaced",
}


@pytest.mark.parametrize("body", REPLACING_CODE)
def test_replaced_code_records_nothing(body, writer, tmp_path, monkeypatch):
    """It would be in effect for the images that follow, whichever method computes them."""
    readout, defaults = clearclip.windows.readout.Readout, torch.nn.functional.softmax.__defaults__
    monkeypatch.setattr(readout, "probabilities", readout.probabilities)  # which restores it
    file = writer(body)
    try:
        with pytest.raises(UserError, match=rf"{REPLACING_CODE[body]}.*by a method of your own.*nothing was recorded"):
            run(tmp_path, ["Writer", "ClearCLIP"], imports=[file], limit=1)
    finally:
        torch.nn.functional.softmax.__defaults__ = defaults
        torch.nn.modules.module._global_forward_hooks.clear()


def test_what_is_random_is_the_same_again(writer, tmp_path):
    """In batches of any size, and after a resumption: there is a seed for every image."""
    file = writer("x = x + torch.randn_like(x)")
    first, second = (
        run(tmp_path / str(size), ["Writer"], imports=[file], batch_size=size)[0].scores.confusion for size in (1, 2)
    )
    assert np.array_equal(first, second)


def test_a_method_that_is_not_deterministic_is_noticed(writer, tmp_path):
    file = writer("x = x if next(calls) % 2 else x.flip(1)")
    with pytest.warns(UserWarning, match="Writer gives other labels when it sees an image twice"):
        (evaluation,) = run(tmp_path, ["Writer"], imports=[file])
    assert "it gave other labels when it saw an image twice" in evaluation.not_published_because

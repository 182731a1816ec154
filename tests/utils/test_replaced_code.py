"""What was replaced in memory since it was imported."""

from __future__ import annotations

import sys
import types

import mmseg.datasets
import pytest

import clearclip.evaluation.run
import clearclip.weights
from clearclip import LastBlock
from clearclip.utils.replaced_code import ImportedCode


@pytest.fixture(scope="module")
def imported() -> ImportedCode:
    return ImportedCode()


def other(*arguments):
    """In the place of a function."""


def test_nothing_is_replaced_where_nobody_did(imported):
    assert imported.replaced() == []


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (clearclip.weights, "choose_weights", other),
        (clearclip.weights, "OPENAI_STD", (1.0, 1.0, 1.0)),
        (clearclip.weights, "never_there", other),
        (clearclip.weights, "Weights", LastBlock),
        (clearclip.weights.Weights, "label", property(other)),
        (mmseg.datasets.BaseSegDataset, "get_label_map", classmethod(other)),
    ],
)
def test_a_member_of_a_module_or_class(owner, name, value, imported, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, value, raising=False)
        (replaced,) = imported.replaced()
        assert replaced.endswith(f".{name}")
    assert imported.replaced() == []


def test_the_code_and_the_defaults_of_a_function(imported, monkeypatch):
    function = clearclip.weights.choose_weights
    with monkeypatch.context() as patch:
        patch.setattr(function, "__defaults__", (None, None, "x", None, None, None))
        assert "clearclip.weights.choose_weights" in imported.replaced()
    with monkeypatch.context() as patch:
        keyword_only = clearclip.evaluation.run.evaluate
        patch.setitem(keyword_only.__kwdefaults__, "resume", "yes")
        assert "clearclip.evaluation.run.evaluate" in imported.replaced()
    with monkeypatch.context() as patch:
        patch.setattr(function, "__code__", other.__code__)
        assert "clearclip.weights.choose_weights" in imported.replaced()


def test_a_module_that_is_imported_later(imported, monkeypatch):
    """Its functions are those of a file that pip knows, or they are named."""
    module = types.ModuleType("mmseg.later")
    module.function = other
    monkeypatch.setitem(sys.modules, "mmseg.later", module)
    assert imported.replaced() == ["mmseg.later.function"]

"""The declared version of the numbers: raised when a number changes, and only then."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from conftest import load_tool

from clearclip.utils.installed_code import NUMERICS, PACKAGE, TESTED_VERSIONS, source_digest

TOOL = load_tool("release_facts")
#: Of 12 scenes of 128 × 128 pixels; another processor rounds otherwise, a change of a method moves thousands.
MOST_PIXELS = 40


def test_a_changed_number_raises_the_version():
    """The confusion matrices of every method are those that were recorded with this version."""
    recorded = dict(np.load(TOOL.RECORDED))
    remedy = 'raise "numerics" in clearclip/numerics.json, then python tools/release_facts.py --record'
    assert recorded.pop("numerics") == NUMERICS["numerics"], remedy
    measured = TOOL.confusion_by_method()
    assert measured.keys() == recorded.keys(), remedy
    for method, confusion in measured.items():
        assert np.abs(confusion - recorded[method]).sum() <= MOST_PIXELS, f"{method}: {remedy}"
        assert confusion.sum() == recorded[method].sum()


def test_the_recorded_methods_differ():
    """Else the test above would say little."""
    recorded = dict(np.load(TOOL.RECORDED))
    del recorded["numerics"]
    matrices = {confusion.tobytes() for confusion in recorded.values()}
    assert len(matrices) >= len(recorded) - 4  # rows that are the same method under two names


def test_tested_versions_are_those_of_the_requirements():
    assert TOOL.tested_versions() == TESTED_VERSIONS, "python tools/release_facts.py --write"


def test_this_source_is_a_released_one():
    """Only said before a release: between two of them, every change would have to be written down."""
    content = json.loads((PACKAGE / "numerics.json").read_text(encoding="utf-8"))
    if source_digest() not in content["released"] and "CLEARCLIP_RELEASE" not in os.environ:
        pytest.skip("this source is not a released one; before a release: python tools/release_facts.py --write")
    assert source_digest() in content["released"]
    assert content["configs"] == TOOL.bundled_configs()

"""The stand-in for mmcv's compiled part is there only while mmseg is imported."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types

import mmcv
import pytest

from clearclip.evaluation.mmseg_import import stand_in_for_mmcv_ext

#: As MMEngine asks, whose own function does not work on Python 3.14.
FULL = importlib.util.find_spec("mmcv._ext") is not None


def test_afterwards_nothing_is_left():
    assert ("mmcv._ext" in sys.modules) <= FULL


def test_a_compiled_mmcv_is_left_alone(monkeypatch):
    compiled = types.ModuleType("mmcv._ext")
    compiled.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", loader=None)
    monkeypatch.setitem(sys.modules, "mmcv._ext", compiled)
    with stand_in_for_mmcv_ext():
        assert sys.modules["mmcv._ext"] is compiled
    assert sys.modules["mmcv._ext"] is compiled


@pytest.mark.skipif(FULL, reason="full mmcv is installed")
def test_calling_a_missing_operator_says_what_to_install():
    with stand_in_for_mmcv_ext():
        from mmcv import _ext

        with pytest.raises(NotImplementedError, match="install full mmcv"):
            _ext.nms()
    assert not hasattr(mmcv, "_ext")

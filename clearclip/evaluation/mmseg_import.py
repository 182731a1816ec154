"""The traps of the mm packages, each handled here and nowhere else.

1. ``mmcv._ext``: mmsegmentation imports ``mmcv.ops``, whose files look for compiled functions as soon as they are
   imported. ``mmcv-lite`` has the files but not the compiled part. Evaluation calls none of these functions, so
   a stand-in is there *while mmseg is imported* and goes away again: MMEngine later asks whether ``mmcv._ext``
   exists and takes other paths if it does. With full mmcv this does nothing.
2. The version check: ``mmseg`` refuses ``mmcv >= 2.2`` with an assertion; here that becomes one clear line.
3. ``torch.load``: MMEngine 0.10 knows nothing of ``weights_only``; this project never loads weights through
   MMEngine (see :mod:`clearclip.weights`), so nothing needs to be patched.
4. ``pkgutil.find_loader``: MMEngine 0.10 asks it for mmcv's compiled part; Python 3.14 no longer has it.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clearclip.utils.collector_pause import collector_paused
from clearclip.utils.open_clip_import import without_compiler


class _MissingOps(types.ModuleType):
    """Has every function that ``mmcv.ops`` asks for; calling one says what is missing."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args, **_kwargs):
            raise NotImplementedError(f"mmcv.ops needs its compiled function {name}: install full mmcv")

        return missing


@contextmanager
def stand_in_for_mmcv_ext() -> Iterator[None]:
    """Let ``import mmcv.ops`` succeed without the compiled ``mmcv._ext``, for as long as the block lasts."""
    if importlib.util.find_spec("mmcv._ext") is not None:
        yield
        return
    sys.modules["mmcv._ext"] = _MissingOps("mmcv._ext")
    try:
        yield
    finally:
        del sys.modules["mmcv._ext"]
        package = sys.modules.get("mmcv")
        if package is not None and hasattr(package, "_ext"):
            del package._ext


def import_mmseg() -> None:
    """Import the parts of MMSegmentation that this project builds on.

    Raises:
        ImportError: a package is missing or does not fit; names it and what to install.
    """
    if not hasattr(pkgutil, "find_loader"):
        find_spec: Any = importlib.util.find_spec  # a spec, not a loader: only whether there is one is asked
        pkgutil.find_loader = find_spec
    try:
        with warnings.catch_warnings(), stand_in_for_mmcv_ext(), without_compiler(), collector_paused():
            warnings.simplefilter("ignore")
            for name in ("mmseg.models", "mmseg.datasets", "mmseg.evaluation", "mmseg.visualization"):
                importlib.import_module(name)
    except ModuleNotFoundError as error:
        message = f"package {error.name} is missing; install the requirements: pip install -r requirements.txt"
        raise ImportError(message) from error
    except AssertionError as error:
        raise ImportError(f"{error} (pip install 'mmcv-lite>=2.0.1,<2.2')") from error


@contextmanager
def mmseg_scope() -> Iterator[None]:
    """Names of types in a config mean MMSegmentation's, as in its own runner."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmseg"):
        yield

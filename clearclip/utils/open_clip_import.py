"""OpenCLIP, imported without PyTorch's compiler, which nothing here uses and which is a third of the time to a result.

Two modules that OpenCLIP imports ask for the compiler (``torch._dynamo``, and with it SymPy) while they are imported:
torchvision's ``ops.roi_align`` for one function that it calls in training only, and timm's ``naflexvit`` to mark
functions that must not be compiled. For as long as the import lasts, stand-ins answer both; afterwards
``torch._dynamo`` is what it always was, and whoever compiles a model loads it then.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch._compile import _disable_dynamo

_COMPILER = "torch._dynamo"
#: Held while stand-ins are in place, by the thread that imports; an import may lead to another one.
_import_lock = threading.RLock()


class _StandIn(ModuleType):
    """In the place of a module of the compiler. Whatever else is asked of it, the real module answers."""

    disable: Callable[..., Any]
    is_compile_supported: Callable[[str], bool]
    utils: ModuleType

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _is_compile_supported(device_type: str) -> bool:
    """``torch._dynamo.utils.is_compile_supported``, loaded when it is called."""
    return importlib.import_module(f"{_COMPILER}.utils").is_compile_supported(device_type)


def _disable(function: Any = None, recursive: bool = True, **_: Any) -> Any:
    """``torch._dynamo.disable``, as PyTorch's own modules mark their functions: it is applied at the first call."""
    return _disable_dynamo(function, recursive)


def _remove_stand_ins() -> None:
    """Leave PyTorch as it was, so that the real compiler is loaded by whoever asks for it next."""
    for name in (_COMPILER, f"{_COMPILER}.utils"):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
    # An import may have bound it to PyTorch's own module.
    if isinstance(vars(torch).get("_dynamo"), _StandIn):
        del torch._dynamo


@contextmanager
def without_compiler() -> Iterator[None]:
    """Nothing that is imported in this block loads PyTorch's compiler only because it marks or asks about functions."""
    with _import_lock:
        if _COMPILER not in sys.modules:
            utils = _StandIn(f"{_COMPILER}.utils")
            utils.is_compile_supported = _is_compile_supported
            package = _StandIn(_COMPILER)
            package.disable = _disable
            package.utils = utils
            # What has a path is a package, whose modules may be imported.
            package.__path__ = []
            sys.modules[package.__name__] = package
            sys.modules[utils.__name__] = utils
        try:
            yield
        finally:
            _remove_stand_ins()


with without_compiler():
    import open_clip

__all__ = ["open_clip"]

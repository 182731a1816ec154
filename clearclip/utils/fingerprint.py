"""A hash of everything that a Python object consists of, so that nobody must list what matters about it."""

from __future__ import annotations

import functools
import hashlib
import sys
from contextlib import suppress
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor


def fingerprint(*values: Any) -> str:
    """32 hexadecimal digits that follow from the values: settings, modules with their weights, buffers and attributes.

    An object counts by its class, the source files of its class and of the functions it holds, and its attributes, and
    so do these. The same on every device and in every process, unless an attribute is not (a path, for example).
    """
    digest = hashlib.sha256()
    _feed(digest, values, {})
    return digest.hexdigest()[:32]


def _feed(digest: Any, value: Any, seen: dict[int | str, Any]) -> None:
    if value is None or isinstance(
        value, str | bytes | int | float | complex | torch.dtype | torch.device | torch.Size
    ):
        digest.update(f"{type(value).__name__} {value!r};".encode("utf-8", "backslashreplace"))
        return
    if id(value) in seen:
        digest.update(b"again;")
        return
    seen[id(value)] = value  # held, so that its id is not given to another
    digest.update(f"{type(value).__name__}(".encode())
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, dict):
        for pair in value.items():
            _feed(digest, list(pair), seen)
    elif isinstance(value, list | tuple):
        for each in value:
            _feed(digest, each, seen)
    elif isinstance(value, set | frozenset):
        digest.update(repr(sorted(map(repr, value))).encode())
    elif isinstance(value, functools.partial):
        _feed(digest, [value.func, value.args, value.keywords], seen)
    elif isinstance(value, MethodType):
        _feed(digest, [value.__func__, value.__self__], seen)
    elif isinstance(value, type | FunctionType | BuiltinFunctionType):
        digest.update(f"{value.__module__} {value.__qualname__}".encode())
        for name in dict.fromkeys(each.__module__ for each in getattr(value, "__mro__", (value,))):
            path = Path(getattr(sys.modules.get(name), "__file__", None) or "")
            if name not in seen and path.suffix == ".py" and path.is_file():
                digest.update(path.read_bytes())
            seen[name] = None
    else:
        state = getattr(value, "__dict__", None)
        if state is None:
            with suppress(Exception):  # what cannot be pickled counts by its class
                state = value.__reduce_ex__(4)[1:]
        _feed(digest, [type(value), state], seen)
    digest.update(b");")

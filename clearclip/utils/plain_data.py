"""Any value as plain data: equal where the meaning is equal, on any machine and in any process."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearclip.utils.fingerprint import digest, hash_file


def plain_data(value: Any, _ancestors: tuple[int, ...] = ()) -> Any:
    """A value as None, bools, numbers, texts, lists and dicts, without addresses in memory.

    Whole numbers are equal as int and as float, lists and tuples of the same members, tensors of the same content on
    any device. Classes and functions count by their name, file and code, other objects by what pickle would keep.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _plain_number(value)
    if isinstance(value, Path):
        return value.as_posix()
    if id(value) in _ancestors:
        return "itself"
    plain_member = functools.partial(plain_data, _ancestors=(*_ancestors, id(value)))
    if isinstance(value, Mapping):
        return {str(key): plain_member(member) for key, member in value.items()}
    if isinstance(value, list | tuple | range):
        return list(map(plain_member, value))
    if isinstance(value, set | frozenset):
        # Their order differs from process to process.
        return sorted(map(plain_member, value), key=repr)
    if isinstance(value, Tensor):
        # NumPy has no bfloat16, so that bytes are hashed.
        tensor_bytes = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return {"tensor": hashlib.sha256(tensor_bytes).hexdigest()[:32], "of": f"{value.dtype}{tuple(value.shape)}"}
    if hasattr(value, "__qualname__") and isinstance(inspect.unwrap(value), type | FunctionType):
        return _plain_code(inspect.unwrap(value), plain_member)
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return {"array": hashlib.sha256(array.tobytes()).hexdigest()[:32], "of": f"{array.dtype}{array.shape}"}
    return {"class": plain_data(type(value)), "state": _state(value, plain_member)}


def _plain_number(value: float) -> int | float | str:
    """A float; JSON has no NaN, and a threshold of 0.0 is the same as 0."""
    if value != value:
        return "nan"
    if value.is_integer():
        return int(value)
    return value


def _state(value: Any, plain_member: Callable[[Any], Any]) -> Any:
    """What an object holds, whether in attributes, in slots, or in what it was built of."""
    try:
        stored = value.__reduce_ex__(4)
    except Exception:  # of whatever cannot be pickled: locks, files, objects of other languages
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    if isinstance(stored, str):  # the name of a function in its module
        return stored
    # The first is what pickle would call. Members of lists and dicts come as iterators.
    arguments_and_state = [list(entry) if isinstance(entry, Iterator) else entry for entry in stored[1:]]
    return [plain_member(entry) for entry in arguments_and_state]


def _plain_code(value: Any, plain_member: Callable[[Any], Any]) -> dict[str, Any]:
    """A class or a function: name, file, and code in memory. What was typed in has no file, and a file may have been
    edited since it was imported.
    """
    code = {}
    for name, member in {"": value, **vars(value)}.items():
        if isinstance(member, FunctionType):
            code[name] = plain_member(_parts_of(member))
    file = getattr(sys.modules.get(value.__module__), "__file__", None)
    has_file = file is not None and Path(file).is_file()
    return {
        "name": f"{value.__module__}.{value.__qualname__}",
        "file": hash_file(file) if has_file else None,
        "code": digest(code),
    }


def _parts_of(function: FunctionType) -> list[Any]:
    """Instructions, defaults, and what a function reads from around it."""
    around: dict[str, Any] = {}
    try:
        variables = inspect.getclosurevars(function)
    except ValueError:  # a variable of an outer function that has no value yet
        variables = None
    if variables is not None:
        around.update(variables.nonlocals)
        # Numbers of its module; anything else there may be a cache, or a path of this machine.
        around.update({name: value for name, value in variables.globals.items() if isinstance(value, int | float)})
    return [_instructions(function.__code__), function.__defaults__, function.__kwdefaults__, around]


def _instructions(code: CodeType) -> list[Any]:
    """What a piece of code does, wherever it stands."""
    constants: list[Any] = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constants.append(_instructions(constant))
        elif isinstance(constant, frozenset):  # whose order differs from process to process
            constants.append(sorted(map(repr, constant)))
        else:
            constants.append(repr(constant))
    return [code.co_code.hex(), list(code.co_names), constants]

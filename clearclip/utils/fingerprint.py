"""Plain data that is equal where the meaning is equal, and its hash."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor


def digest(data: Any) -> str:
    """A hash of plain data, 32 hexadecimal digits; the order of a dict's keys does not matter."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plain_data(value: Any, _ancestors: tuple[int, ...] = ()) -> Any:
    """Any value as plain data, equal for values that mean the same: no path of a machine, no address in memory.

    Dicts, lists and tuples are walked; arrays and tensors count by their content, on any device; classes and functions
    by their name and code; other objects by their class and attributes.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if value != value:
            return "nan"
        return int(value) if value.is_integer() else value
    if isinstance(value, Path):
        return value.as_posix()
    if id(value) in _ancestors:
        return "itself"
    inner = partial(plain_data, _ancestors=(*_ancestors, id(value)))
    if isinstance(value, Mapping):
        return {str(key): inner(member) for key, member in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(inner, value), key=repr)
    if isinstance(value, list | tuple | range):
        return list(map(inner, value))
    if isinstance(value, Tensor):
        # As bytes, since NumPy has no bfloat16.
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return {"tensor": hashlib.sha256(content).hexdigest()[:32], "of": f"{value.dtype}{tuple(value.shape)}"}
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return {"array": hashlib.sha256(array.tobytes()).hexdigest()[:32], "of": f"{array.dtype}{array.shape}"}
    if isinstance(value, partial):
        return {"partial": inner([value.func, value.args, value.keywords])}
    if isinstance(value, MethodType):
        return {"method": inner([value.__func__, value.__self__])}
    if hasattr(value, "__qualname__"):
        return _class_or_function(inspect.unwrap(value), inner)
    state = getattr(value, "__dict__", None)
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return {"class": plain_data(type(value)), "state": text if state is None else inner(state)}


def _class_or_function(value: Any, inner: Any) -> dict[str, Any]:
    """Name, file and instructions: what was typed in has no file, and a file may have changed since it was imported."""
    code = {}
    for name, member in {"": value, **getattr(value, "__dict__", {})}.items():
        if hasattr(member, "__code__"):
            code[name] = [_instructions(member.__code__), inner([member.__defaults__, member.__kwdefaults__])]
    file = getattr(sys.modules.get(value.__module__), "__file__", None)
    has_file = file is not None and Path(file).is_file()
    return {
        "name": f"{value.__module__}.{value.__qualname__}",
        "file": hash_file(file) if has_file else None,
        "code": digest(code),
    }


def _instructions(code: CodeType) -> list[Any]:
    constants: list[Any] = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constants.append(_instructions(constant))
        elif isinstance(constant, frozenset):  # whose order differs from process to process
            constants.append(sorted(map(repr, constant)))
        else:
            constants.append(repr(constant))
    return [code.co_code.hex(), list(code.co_names), constants]


def hash_files(named_files: Iterable[tuple[str, Path]]) -> str:
    """A hash of the bytes of files and of what they are called here, 32 digits. Files are read in threads."""
    named_files = list(named_files)
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(hash_file, (path for _, path in named_files)))
    return digest([[name, file_hash] for (name, _), file_hash in zip(named_files, hashes, strict=True)])


def hash_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file. A file that has not changed is read once."""
    return _hash_file(str(path), *file_state(path))


def file_state(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """What changes when a file is written: size, both times (the second cannot be set), and its place on the disk."""
    stat = Path(path).stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@lru_cache(maxsize=1 << 18)
def _hash_file(path: str, *_: int) -> str:
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what two runs' facts differ: ``model.prob_thd was 0.1, is 0.2``."""
    old, new = _flat(before), _flat(now)
    return [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat

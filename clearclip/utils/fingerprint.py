"""Fingerprints: what a result depends on as plain data, and the hash of that.

What a run depends on is said in :mod:`clearclip.evaluation.facts`, what a text feature depends on in
:mod:`clearclip.text.encoder`. Here is how it becomes plain data that is equal where the meaning is equal: no path, no
address in memory, and for code that is not of a package with a version, its source.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

PACKAGE = Path(__file__).resolve().parents[1]
#: Parts of this package that cannot change a number.
_SHOWING = ("commands", "results", "analysis", "visualize", "version.py", "segmentation.py")
#: What a result depends on, by its version.
_PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "timm", "transformers", "mmsegmentation", "mmengine", "mmcv",
    "mmcv-lite", "numpy", "opencv-python", "opencv-python-headless", "ftfy", "regex",
)  # fmt: skip
#: Modules that a version describes, or :func:`code_digest`.
_VERSIONED = {*sys.stdlib_module_names, "clearclip", "cv2", "mmcv", "mmengine", "mmseg", "numpy", "open_clip", "PIL"}
_VERSIONED |= {"scipy", "timm", "torch", "torchvision", "transformers"}


def digest(data: Any) -> str:
    """A hash of plain data, 32 hexadecimal digits; the order of a dict's keys does not matter."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plain(value: Any, _within: tuple[int, ...] = ()) -> Any:
    """Any value as plain data, equal for values that mean the same.

    Dicts, lists and tuples are walked; arrays and tensors count by their content, on any device; classes and functions
    by their name and :func:`source_of` them; other objects, modules among them, by their class and attributes.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value else "nan"
    if isinstance(value, Path):
        return value.as_posix()
    if id(value) in _within:
        return "itself"
    inner = partial(plain, _within=(*_within, id(value)))
    if isinstance(value, Mapping):
        return {str(key): inner(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(inner, value), key=repr)
    if isinstance(value, list | tuple | range):
        return list(map(inner, value))
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return {"tensor": hashlib.sha256(content).hexdigest()[:32], "of": f"{value.dtype}{tuple(value.shape)}"}
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return {"array": hashlib.sha256(array.tobytes()).hexdigest()[:32], "of": f"{array.dtype}{array.shape}"}
    if isinstance(value, partial):
        return {"partial": inner([value.func, value.args, value.keywords])}
    if isinstance(value, MethodType):
        return {"method": inner([value.__func__, value.__self__])}
    if hasattr(value, "__qualname__"):  # a class or a function
        source = source_of(value)
        return {"name": f"{value.__module__}.{value.__qualname__}", **({"source": source} if source else {})}
    state = getattr(value, "__dict__", None)
    return {"class": plain(type(value)), "state": repr(value) if state is None else inner(state)}


def source_of(*things: Any) -> str | None:
    """A hash of the code of classes or functions: of their files, and of the files of what those use.

    None for code of packages that have a version, and for this package, whose code is in :func:`code_digest`.
    """
    files: dict[str, bytes] = {}
    for thing in things:
        _gather(thing, files)
    return digest({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}) if files else None


def _gather(thing: Any, files: dict[str, bytes]) -> None:
    name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None) or ""
    if name.partition(".")[0] in _VERSIONED:
        return
    codes = [one.__code__ for one in (thing, *getattr(thing, "__dict__", {}).values()) if hasattr(one, "__code__")]
    module = sys.modules.get(name)
    candidates = [getattr(module, "__file__", None), *(code.co_filename for code in codes)]
    file = next((Path(one) for one in candidates if one and Path(one).is_file()), None)
    if file is not None and {"site-packages", "dist-packages"} & set(file.parts):
        return
    # What was typed into a notebook has no file; its instructions tell it apart. A path is no part of what it does.
    key = f"{name}.{thing.__name__}" if file is None else name
    if key in files:
        return
    files[key] = b"".join(map(_instructions, codes)) if file is None else file.read_bytes()
    for other in (*vars(module).values(), *getattr(thing, "__mro__", ())) if module is not None else ():
        if isinstance(other, ModuleType | type | FunctionType):
            _gather(other, files)


def _instructions(code: CodeType) -> bytes:
    rest = [one for one in code.co_consts if not isinstance(one, CodeType)]
    inner = b"".join(_instructions(one) for one in code.co_consts if isinstance(one, CodeType))
    return code.co_code + repr((code.co_names, rest)).encode() + inner


@lru_cache
def code_digest(*parts: str) -> str:
    """A hash of this package's source: of these parts, or of all but what only shows results."""
    named = sorted((path.relative_to(PACKAGE), path) for path in PACKAGE.rglob("*.py"))
    wanted = (one for one in named if (one[0].parts[0] in parts if parts else one[0].parts[0] not in _SHOWING))
    return hash_files((name.as_posix(), path) for name, path in wanted)


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Of the packages that a result depends on."""
    found = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def hash_files(files: Iterable[tuple[str, Path]]) -> str:
    """A hash of the bytes of files and of what they are called here, 32 digits. Files are read in threads."""
    files = list(files)
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(hash_file, (path for _, path in files)))
    return digest([[name, one] for (name, _), one in zip(files, hashes, strict=True)])


def hash_file(path: str | Path) -> str:
    """The SHA-256 of a file. A file that has not changed is read once."""
    stat = Path(path).stat()
    return _hash_file(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=1 << 18)
def _hash_file(path: str, *_: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what two runs' facts differ: ``model.prob_thd was 0.1, is 0.2``."""
    old, new = _flat(before), _flat(now)
    return [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found

"""Hashes: of plain data, of files, and in what two runs' facts differ."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any


def digest(data: Any) -> str:
    """A hash of plain data, 32 hexadecimal digits; the order of a dict's keys does not matter."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def hash_files(named_files: Iterable[tuple[str, Path]]) -> str:
    """A hash of the bytes of files and of what they are called here, 32 digits. Files are read in threads."""
    named_files = list(named_files)
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(hash_file, (path for _, path in named_files))
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


def differences(earlier_facts: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """In what two runs' facts differ: ``model.prob_thd was 0.1, is 0.2``."""
    earlier_values, values = _leaves(earlier_facts), _leaves(facts)
    texts = []
    for name in sorted({*earlier_values, *values}):
        earlier_value, value = earlier_values.get(name), values.get(name)
        if earlier_value != value:
            texts.append(f"{name} was {earlier_value!r}, is {value!r}")
    return texts


def _leaves(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All values by their dotted names, those of lists of objects by their numbers."""
    leaves: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            leaves.update(_leaves(value, f"{prefix}{name}."))
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves

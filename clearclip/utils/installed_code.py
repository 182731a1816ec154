"""Which program this is: its source and version of numbers, the packages it runs on, and whether they are untouched."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from clearclip.utils.fingerprint import hash_files

PACKAGE = Path(__file__).resolve().parents[1]
#: "numerics" is raised whenever a number changes; "released" are the digests of the sources that compute these numbers;
#: "configs" are the files of the folder of configs that belong to a source.
NUMERICS = json.loads((PACKAGE / "numerics.json").read_text(encoding="utf-8"))
#: Packages that a result depends on → the versions that were tested.
TESTED_VERSIONS: dict[str, list[str]] = json.loads((PACKAGE / "tested_versions.json").read_text(encoding="utf-8"))
#: Packages of which every Python file is compared with pip's record, and the modules that they install.
COMPARED_PACKAGES = {
    "open_clip_torch": "open_clip", "timm": "timm", "mmengine": "mmengine", "mmcv": "mmcv", "mmcv-lite": "mmcv",
    "mmsegmentation": "mmseg", "onedl-mmengine": "mmengine", "onedl-mmcv": "mmcv", "onedl-mmsegmentation": "mmseg",
}  # fmt: skip


@lru_cache
def source_digest(*folders: str) -> str:
    """A hash of this package's Python files, tables and bundled configs, or of the files in some of its folders."""
    paths = [path for pattern in ("*.py", "*.csv", "*.json") for path in PACKAGE.rglob(pattern)]
    files = {path.relative_to(PACKAGE).as_posix(): path for path in paths}
    # The hash is to be listed in these files themselves, and what they list decides nothing else that is computed.
    files = {name: path for name, path in files.items() if name not in ("numerics.json", "tested_versions.json")}
    # A wheel has the configs in the package, among files that the user may have added.
    files = {name: path for name, path in files.items() if not name.startswith("config/")}
    configs = PACKAGE / "config" if (PACKAGE / "config").is_dir() else PACKAGE.parent / "config"
    files |= {f"config/{name}": configs / name for name in NUMERICS["configs"] if (configs / name).is_file()}
    if folders:
        files = {name: path for name, path in files.items() if name.split("/")[0] in folders}
    return hash_files(sorted(files.items()))


def is_released() -> bool:
    """Whether this source is one of those that were released, to the last byte."""
    return source_digest() in NUMERICS["released"]


@lru_cache
def package_versions() -> dict[str, str]:
    """Of the installed packages that a result depends on. A build's suffix (``+cu130``) is left out."""
    versions = {}
    for name in TESTED_VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _recorded(distribution: Distribution) -> Iterator[tuple[str, str]]:
    """The path of every Python file that pip recorded for a package, and its hash, as pip writes it.

    Lines are read as text: ``importlib.metadata.files`` makes an object of each, which takes half a second.
    """
    folder = str(distribution.locate_file(""))
    for line in (distribution.read_text("RECORD") or "").splitlines():
        name, _, hash_and_size = line.partition(",")
        if name.endswith(".py"):
            yield f"{folder}/{name}", hash_and_size.partition(",")[0]


@lru_cache
def recorded_files() -> frozenset[str]:
    """The paths of this package's own files and of all files that pip recorded for the packages above."""
    paths = {str(path) for path in PACKAGE.rglob("*.py")}
    for name in package_versions():
        paths.update(path for path, _ in _recorded(importlib.metadata.distribution(name)))
    return frozenset(paths)


@lru_cache
def installed_files() -> frozenset[str]:
    """The paths of all files that pip recorded, for whatever package."""
    paths: set[str] = set()
    for distribution in importlib.metadata.distributions():
        paths.update(path for path, _ in _recorded(distribution))
    return frozenset(paths)


@lru_cache
def changed_packages() -> tuple[str, ...]:
    """Packages whose Python files are not those that pip recorded when it installed them; compared once a process."""
    names = set()
    for name in package_versions().keys() & COMPARED_PACKAGES.keys():
        recorded = _recorded(importlib.metadata.distribution(name))
        if not all(_has_hash(path, recorded_hash) for path, recorded_hash in recorded):
            names.add(name)
    # Of a clone that was installed in place, and of a file that was added, pip recorded nothing.
    for name, module in list(sys.modules.items()):
        package = name.partition(".")[0]
        file = getattr(module, "__file__", None) or ""
        if package in COMPARED_PACKAGES.values() and file.endswith(".py") and file not in recorded_files():
            names.add(package)
    return tuple(sorted(names))


def _has_hash(path: str, recorded_hash: str) -> bool:
    """Whether a file has the hash in pip's record, such as ``sha256=`` and 43 letters."""
    algorithm, _, expected = recorded_hash.partition("=")
    if not expected:  # pip hashes all files but those that it writes itself
        return True
    try:
        file_bytes = Path(path).read_bytes()
    except OSError:
        return False
    hashed = base64.urlsafe_b64encode(hashlib.new(algorithm, file_bytes).digest())
    return hashed.decode().rstrip("=") == expected


def is_recorded(defined_class: type) -> bool:
    """Whether a class is what one of :func:`recorded_files` defines under its name."""
    module = sys.modules.get(defined_class.__module__)
    member: Any = module
    for name in defined_class.__qualname__.split("."):
        member = getattr(member, name, None)
    # A class may claim any module and name; what counts is what stands there.
    return member is defined_class and getattr(module, "__file__", None) in recorded_files()

"""Which program this is: its source and version of numbers, the packages it runs on, and whether they are untouched."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch

from clearclip.utils.fingerprint import hash_files

PACKAGE = Path(__file__).resolve().parents[1]
#: "numerics" is raised whenever a number changes; "released" are the digests of the sources that compute these numbers;
#: "configs" are the files of the folder of configs that belong to a source.
NUMERICS = json.loads((PACKAGE / "numerics.json").read_text(encoding="utf-8"))
#: Packages that a result depends on → the versions that were tested.
TESTED_VERSIONS: dict[str, list[str]] = json.loads((PACKAGE / "tested_versions.json").read_text(encoding="utf-8"))
#: Packages of which pip's record of every file is compared, and the modules that they install.
_COMPARED = {
    "open_clip_torch": "open_clip", "timm": "timm", "mmengine": "mmengine", "mmcv": "mmcv", "mmcv-lite": "mmcv",
    "mmsegmentation": "mmseg", "onedl-mmengine": "mmengine", "onedl-mmcv": "mmcv", "onedl-mmsegmentation": "mmseg",
}  # fmt: skip
_WATCHED_PACKAGES = ("clearclip", *_COMPARED.values())
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_CONSTANTS = (str, int, float, tuple, dict, list, set)
_TRUSTED_FOLDER = f"{Path(torch.__file__).parent}/"
_WATCHED_MODULES = ("torch", "torch.nn.functional", "torch.nn.modules.module", "numpy", "cv2", "PIL.Image")


@lru_cache
def source_digest(*folders: str) -> str:
    """A hash of this package's Python files, tables and bundled configs, or of the files in some of its folders."""
    files = {path.relative_to(PACKAGE).as_posix(): path for path in (*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.csv"))}
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


@lru_cache
def recorded_files() -> frozenset[str]:
    """The paths of this package's own files and of all files that pip recorded for the packages above."""
    paths = {str(path) for path in PACKAGE.rglob("*.py")}
    for name in package_versions():
        files = importlib.metadata.files(name) or ()
        paths.update(str(file.locate()) for file in files if file.suffix == ".py")
    return frozenset(paths)


@lru_cache
def changed_packages() -> tuple[str, ...]:
    """Packages whose Python files are not those that pip recorded when it installed them; compared once a process."""
    changed = []
    for name in package_versions().keys() & _COMPARED.keys():
        files = importlib.metadata.files(name) or ()
        python_files = [file for file in files if file.suffix == ".py" and file.hash]
        if not all(map(_as_recorded, python_files)):
            changed.append(name)
    # Of a clone that was installed in place, and of a file that was added, pip recorded nothing.
    for name, module in list(sys.modules.items()):
        package, file = name.partition(".")[0], getattr(module, "__file__", None) or ""
        if package in _COMPARED.values() and file.endswith(".py") and file not in recorded_files():
            changed.append(package)
    return tuple(sorted(set(changed)))


def _as_recorded(file: importlib.metadata.PackagePath) -> bool:
    path = Path(str(file.locate()))
    if not path.is_file():
        return False
    content = hashlib.new(file.hash.mode, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(content).decode().rstrip("=") == file.hash.value


def is_recorded(kind: type) -> bool:
    """Whether a class is what one of :func:`recorded_files` defines under its name."""
    module = sys.modules.get(kind.__module__)
    defined: Any = module
    for name in kind.__qualname__.split("."):
        defined = getattr(defined, name, None)
    # A class may claim any module and name; what counts is what stands there.
    return defined is kind and getattr(module, "__file__", None) in recorded_files()


class ImportedCode:
    """What the modules of these packages held when this object was made: functions, classes, constants of our own."""

    def __init__(self) -> None:
        self.members = dict(_members())

    def patched(self) -> list[str]:
        """The names of what has been replaced since."""
        now = dict(_members())
        replaced = [
            name
            for name, member in self.members.items()
            # PyTorch wraps some of its functions when they are first used.
            if name in now and not _same(member, now[name]) and not _is_recorded_function(now[name])
        ]
        foreign = [name for name, member in now.items() if name not in self.members and _is_foreign(member)]
        return sorted([*replaced, *foreign])


def _members() -> Iterator[tuple[str, tuple]]:
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and (name.startswith(_WATCHED_PACKAGES) or name in _WATCHED_MODULES):
            for member_name, member in list(vars(module).items()):
                yield from _watched(f"{name}.{member_name}", member, name)
                # A container that was empty may be a cache.
                if name.startswith("clearclip") and type(member) in _CONSTANTS and member and "__" not in member_name:
                    yield f"{name}.{member_name}", (_constant(member),)


def _watched(name: str, member: Any, module: str) -> Iterator[tuple[str, tuple]]:
    if isinstance(member, FunctionType):
        yield name, (member, member.__code__, member.__defaults__)
    elif isinstance(member, type):
        yield name, (member,)
        if member.__module__ == module:
            for inner_name, inner in list(vars(member).items()):
                yield from _watched(f"{name}.{inner_name}", inner, module)
    elif callable(member) or isinstance(member, property | staticmethod | classmethod):
        yield name, (member,)


def _same(before: tuple, now: tuple) -> bool:
    """Functions and classes are the same objects; constants are equal."""
    return len(before) == len(now) and all(
        old is new or (not callable(old) and type(old) is type(new) and old == new)
        for old, new in zip(before, now, strict=True)
    )


def _constant(value: Any) -> Any:
    """What a constant holds; objects in it count by their identity."""
    if type(value) is dict:
        return tuple((_constant(key), _constant(member)) for key, member in value.items())
    if type(value) in (tuple, list, set):
        return tuple(map(_constant, value))
    return value if isinstance(value, str | int | float) else id(value)


def _is_foreign(member: tuple) -> bool:
    """Whether a function comes from no file that is known. Functions that Python itself makes have no file."""
    if not isinstance(member[0], FunctionType):
        return False
    file = member[1].co_filename
    # Python's own modules are frozen into it.
    if file in recorded_files() or file == "<string>" or file.startswith((_STANDARD_LIBRARY, "<frozen ")):
        return False
    # What a module of these packages imports from another one that pip installed, such as rich.
    return file not in _files_of_package(member[0].__module__.partition(".")[0])


@lru_cache
def _files_of_package(package: str) -> frozenset[str]:
    """The paths of all files that pip recorded for what installs a package of modules."""
    paths: set[str] = set()
    for distribution in importlib.metadata.packages_distributions().get(package, ()):
        paths.update(str(file.locate()) for file in importlib.metadata.files(distribution) or ())
    return frozenset(paths)


def _is_recorded_function(member: tuple) -> bool:
    return isinstance(member[0], FunctionType) and member[1].co_filename.startswith(_TRUSTED_FOLDER)

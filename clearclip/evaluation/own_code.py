"""The user's own code in a run: which classes are not released ones, and the bytes of the files that they come from."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, HOOKS, LOOPS
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.datasets import plain_datasets
from clearclip.evaluation.journal import is_work_dir
from clearclip.methods import Method
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest, hash_file
from clearclip.utils.installed_code import PACKAGE, is_recorded
from clearclip.utils.plain_data import plain_data

_REGISTRIES = (DATA_SAMPLERS, DATASETS, HOOKS, LOOPS, METRICS, MODELS, TRANSFORMS)
#: A method in a folder with more Python files than this is refused: all of them are part of its identity.
MOST_FILES = 1000


def nested_methods(method: Method) -> Iterator[Method]:
    """A method and those that it holds, in any of its attributes, in lists and dicts as well."""
    yield method
    pending = [value for name, value in vars(method).items()]
    while pending:
        value = pending.pop()
        if isinstance(value, Method):
            yield from nested_methods(value)
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, list | tuple | set):
            pending.extend(value)


def is_own_method(method: Method) -> bool:
    """Whether any part of a method is not one of this package's classes as its files define it."""
    for part in nested_methods(method):
        if not is_recorded(type(part)) or not type(part).__module__.startswith("clearclip.methods."):
            return True
        # A function as an option, or in the place of one of the class's.
        if any(callable(value) and not isinstance(value, Method) for value in vars(part).values()):
            return True
    return False


def own_classes(cfg: Config, dataset: CheckedDataset, hooks: Iterable[Any] = ()) -> list[type]:
    """The classes of a run, but for its methods, that no file of this package's or MMSegmentation's defines."""
    objects = [dataset, *hooks]
    for part in plain_datasets(dataset.dataset):
        objects += [part, *part.pipeline.transforms]
    classes = [*map(type, objects), *_configured_classes(cfg.to_dict())]
    return [kind for kind in dict.fromkeys(classes) if not is_recorded(kind)]


def _configured_classes(value: Any) -> Iterator[type]:
    """The class of every part of a config that has a type."""
    if isinstance(value, Mapping):
        if "type" in value:
            yield from _registered(value["type"])
        for member in value.values():
            yield from _configured_classes(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _configured_classes(member)


def _registered(kind: Any) -> Iterator[type]:
    if isinstance(kind, type):
        yield kind
    elif isinstance(kind, str):
        for registry in _REGISTRIES:
            registered = registry.get(kind)
            if isinstance(registered, type):
                yield registered


def own_code_facts(classes: Iterable[type], imports: Iterable[str | Path] = ()) -> dict[str, str]:
    """What is known of the user's own code: for each file its name → the hash of its bytes; for each class what it is
    in memory, which may be newer or older than its file.

    Args:
        classes: those of the run that are not released ones.
        imports: files that were imported for the run.

    Raises:
        UserError: one lies in a folder with too many files.
    """
    facts = {f"class {kind.__qualname__}": digest(plain_data(_members(kind))) for kind in classes}
    roots = [Path(path).resolve() for path in imports]
    for kind in classes:
        for parent in kind.__mro__:
            file = getattr(sys.modules.get(parent.__module__), "__file__", None)
            if file is not None and not is_recorded(parent) and not _is_library(Path(file).resolve()):
                roots.append(Path(file).resolve())
    # Names are relative to the method's folder, so that it may be moved.
    named_files: dict[Path, str] = {}
    for root in roots:
        for path in [root, *_python_files(root.parent)]:
            named_files[path] = path.relative_to(root.parent).as_posix()
    pending = list(named_files)
    while pending:
        for path in _imported_files(str(pending.pop())):
            if path not in named_files and not _is_library(path):
                named_files[path] = path.name
                pending.append(path)
    for path, name in sorted(named_files.items()):
        if path.is_file() and not _is_library(path):
            facts[f"file {name}"] = digest([facts.get(f"file {name}"), hash_file(path)])
    return facts


def _members(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__", "__doc__")}


def _is_library(path: Path) -> bool:
    """Whether a file, its links resolved, is Python's, of an installed package, or this package's own."""
    return str(path).startswith(_library_folders())


@lru_cache
def _library_folders() -> tuple[str, ...]:
    """The folders of Python's own modules, of installed packages and of this package, each with a slash at its end."""
    # Thousands of files are asked for, and sysconfig puts its paths together anew each time.
    paths = sysconfig.get_paths()
    folders = [Path(paths[name]).resolve() for name in ("stdlib", "purelib", "platlib")]
    return tuple(f"{folder}{os.sep}" for folder in (*folders, PACKAGE))


def _python_files(folder: Path) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        # Each run writes its config there, and would have other code than the one before.
        if is_work_dir(Path(parent)):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        files += [Path(parent, name).resolve() for name in sorted(names) if name.endswith(".py")]
        if len(files) > MOST_FILES:
            raise UserError(
                f"{folder} has more than {MOST_FILES} Python files, all of which would belong to the method in it; "
                "move the method's file into a folder of its own"
            )
    return [file for file in files if not _is_library(file)]


def _imported_files(path: str) -> list[Path]:
    """The files that a Python file imports, inside functions as well."""
    if not os.path.isfile(path) or not path.endswith(".py"):
        return []
    files = map(_file_of_module, _imported_names(path, hash_file(path)))
    return [file for file in files if file is not None]


@lru_cache(maxsize=4096)
def _imported_names(path: str, _sha256: str) -> list[str]:
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (SyntaxError, ValueError):
        return []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    return [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]


def _file_of_module(name: str) -> Path | None:
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None and name.partition(".")[0] not in sys.modules:
        with suppress(ImportError, ValueError):
            file = getattr(importlib.util.find_spec(name.partition(".")[0]), "origin", None)
    return None if file is None else Path(file).resolve()

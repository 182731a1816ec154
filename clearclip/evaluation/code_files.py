"""The Python files that code of the user's own consists of: those below its folder, and those that these import."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from clearclip.evaluation.journal import is_work_dir
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import hash_file
from clearclip.utils.installed_code import PACKAGE

#: A method in a folder with more Python files than this is refused: all of them are part of its identity.
MOST_FILES = 1000


def code_files(roots: Iterable[Path]) -> dict[Path, str]:
    """Every file that belongs to some code → its name below the folder of that code, so that the folder may be moved.

    Args:
        roots: the files in which it is defined.

    Raises:
        UserError: one lies in a folder with too many files.
    """
    names: dict[Path, str] = {}
    for root in roots:
        for path in [root, *_importable_files(root.parent)]:
            names[path] = path.relative_to(root.parent).as_posix()
    pending = list(names)
    while pending:
        for path in _imported_files(pending.pop()):
            if path not in names and not is_library(path):
                names[path] = path.name
                pending.append(path)
    return {path: name for path, name in sorted(names.items()) if path.is_file() and not is_library(path)}


def is_library(path: Path) -> bool:
    """Whether a file, its links resolved, is Python's, of an installed package, or this package's own."""
    return str(path).startswith(_library_folders())


@lru_cache
def _library_folders() -> tuple[str, ...]:
    """The folders of Python's own modules, of installed packages and of this package, each with a slash at its end."""
    # Thousands of files are asked for, and sysconfig puts its paths together anew each time.
    paths = sysconfig.get_paths()
    folders = [Path(paths[name]).resolve() for name in ("stdlib", "purelib", "platlib")]
    return tuple(f"{folder}{os.sep}" for folder in (*folders, PACKAGE))


def _importable_files(folder: Path) -> list[Path]:
    files: list[Path] = []
    for parent, subfolders, names in os.walk(folder):
        # Each run writes its config there, and would have other code than the one before.
        if is_work_dir(Path(parent)):
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__")))
        files += [Path(parent, name).resolve() for name in sorted(names) if name.endswith(".py")]
        if len(files) > MOST_FILES:
            raise UserError(
                f"{folder} has more than {MOST_FILES} Python files, all of which would belong to the method in it; "
                "move the method's file into a folder of its own"
            )
    return files


def _imported_files(path: Path) -> list[Path]:
    """The files that a Python file imports, inside functions as well."""
    if not path.is_file() or path.suffix != ".py":
        return []
    files: list[Path] = []
    for level, name in _imported_names(path, hash_file(path)):
        if level:
            # from ..common import FACTOR: one folder up for each dot but the first.
            files += _files_of(path.parents[level - 1], name)
        elif name.partition(".")[0] not in sys.stdlib_module_names:
            files += _files_of_module(name)
    return [file.resolve() for file in files]


@lru_cache(maxsize=4096)
def _imported_names(path: Path, _sha256: str) -> list[tuple[int, str]]:
    """What a file imports: how many dots, and the dotted name; that of a member, too, since it may be a module."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append((node.level, node.module or ""))
            names += [(node.level, f"{node.module or ''}.{alias.name}".lstrip(".")) for alias in node.names]
    return names


def _files_of_module(name: str) -> Iterator[Path]:
    """The file of a module, whether or not it has been imported, and those of the packages that it is in."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is not None:
        yield Path(file)
        return
    package, _, submodule = name.partition(".")
    with suppress(ImportError, ValueError):
        specification = importlib.util.find_spec(package)
        if specification is not None and specification.origin is not None:
            yield Path(specification.origin)
            yield from _files_of(Path(specification.origin).parent, submodule)


def _files_of(folder: Path, name: str) -> Iterator[Path]:
    """The file of a module below a folder, and those of the packages between."""
    for part in filter(None, name.split(".")):
        yield folder / "__init__.py"
        yield folder / f"{part}.py"
        folder = folder / part
    yield folder / "__init__.py"

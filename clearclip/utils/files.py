"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from clearclip.utils.errors import UserError


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as the user means it: a leading ``~`` is the home folder, where there is one."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises where there is no home)


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place.

    The temporary file has the suffix of ``path``, by which many writers choose the format.
    """
    path = user_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:50]}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp's files are private; a result should have the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def write_text_atomically(path: str | Path, text: str) -> Path:
    """Write ``text`` (UTF-8) to ``path``, whole or not at all."""
    return write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write ``data`` to ``path``, whole or not at all; folders are made.

    Raises:
        UserError: the place cannot be written.
    """
    try:
        return write_atomically(path, lambda temporary: temporary.write_bytes(data))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be written ({reason}); choose another place") from error


def check_folder(option: str, folder: str | Path) -> None:
    """Say before long work, and without making it, whether files can go to a folder.

    Raises:
        UserError: it, or what should hold it, is a file or may not be written to; names the ``option``.
    """
    folder = user_path(folder).absolute()
    if "\0" in str(folder):
        raise UserError(f"{option} {str(folder)[:200]!r} is no name of a folder; choose another")
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError as error:  # a name that is too long
        raise UserError(f"{option} {str(folder)[:200]}: {error.strerror}; choose another folder") from error
    if not there.is_dir():
        raise UserError(f"{option} {folder}: {there} is a file; choose another folder")
    if not os.access(there, os.W_OK):
        raise UserError(f"{option} {folder}: {there} may not be written to; choose another folder")

"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clearclip.utils.errors import UserError


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as the user means it: a leading ``~`` is the home folder, where there is one."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises where there is no home)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """An empty temporary file in the folder of ``path``, which takes its place when the block has ended without an
    error, and is removed otherwise. Folders are made.

    It has the suffix of ``path``, by which many writers choose the format.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since a file can be moved in one step only within a file system.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:50]}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's files are private; a result should have the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def temporary_for_user(path: Path) -> Iterator[Path]:
    """:func:`temporary_beside` for a file that a user has named.

    Raises:
        UserError: the place cannot be written. Errors of the block stay what they are.
    """
    with ExitStack() as stack:
        try:
            temporary = stack.enter_context(temporary_beside(path))
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            raise unwritable(path, error) from error
        yield temporary


def unwritable(path: str | Path, error: Exception) -> UserError:
    """The error for a place that a user has named and that cannot be written."""
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{path} cannot be written ({reason}); choose another place")


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place; see :func:`temporary_beside`."""
    path = user_path(path)
    with temporary_beside(path) as temporary:
        write(temporary)
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
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise unwritable(path, error) from error


def check_folder(option: str, folder: str | Path) -> None:
    """Say before long work, and without making it, whether files can go to a folder.

    Raises:
        UserError: it, or what should hold it, is a file or may not be written to; names the ``option``.
    """
    folder = user_path(folder).absolute()
    if "\0" in str(folder):
        raise UserError(f"{option} {str(folder)[:200]!r} is no name of a folder; choose another")
    try:
        # The folder itself, or the one in which it will be made.
        nearest_existing = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError as error:  # a name that is too long
        raise UserError(f"{option} {str(folder)[:200]}: {error.strerror}; choose another folder") from error
    if not nearest_existing.is_dir():
        raise UserError(f"{option} {folder}: {nearest_existing} is a file; choose another folder")
    if not os.access(nearest_existing, os.W_OK):
        raise UserError(f"{option} {folder}: {nearest_existing} may not be written to; choose another folder")

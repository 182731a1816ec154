"""What all command lines share: errors and warnings in one line each."""

from __future__ import annotations

import argparse
import errno
import importlib.util
import logging
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path
from clearclip.utils.printable import printable
from clearclip.utils.validators import most_similar

#: What the packages of requirements.txt are imported as.
REQUIRED_MODULES = {
    "torch", "torchvision", "open_clip", "mmengine", "mmcv", "mmseg", "pkg_resources", "ftfy", "regex", "numpy", "cv2",
    "PIL", "pandas", "openpyxl", "safetensors", "filelock", "tqdm", "rich", "matplotlib",
}  # fmt: skip
INSTALL_FIRST = "install first: make demo, or pip install -c constraints.txt -e . (README.md)"


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are a :class:`UserError`: one line, no usage text."""

    def error(self, message: str) -> NoReturn:
        unknown_option = re.fullmatch(r"unrecognized arguments: (--[\w-]+).*", message, re.DOTALL)
        if unknown_option:
            similar_option = most_similar(unknown_option[1], self._option_string_actions)
            if similar_option:
                message = f"{message}; did you mean {similar_option}?"
        raise UserError(f"{message}; see {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """argparse's, and afterwards the files of ``--import`` are imported.

        They come last because they load PyTorch: a misspelled option is told before that.
        """
        # Images may stand before and after options; without this, those after an option would be an error.
        has_list = any(action.nargs == "*" for action in self._get_positional_actions())
        parse = super().parse_intermixed_args if has_list else super().parse_args
        parsed = parse(args, namespace)
        for name in getattr(parsed, "imports", ()):
            import_file(user_path(name))
        return parsed


class ImportFile(argparse.Action):
    """``--import FILE``: a Python file whose methods register themselves. The names of the files are in ``imports``,
    and :meth:`CommandParser.parse_args` imports them.
    """

    def __init__(self, option_strings: Any, dest: str, **_: Any):
        text = "Python file that registers a method of your own (may be repeated)"
        super().__init__(option_strings, "imports", default=[], metavar="FILE", help=text)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.imports = [*namespace.imports, values]


class JoinWords(argparse.Action):
    """``--classes``, which may be repeated: all of them count."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        earlier_words = getattr(namespace, self.dest)
        if earlier_words is not None:
            values = f"{earlier_words}, {values}"
        setattr(namespace, self.dest, values)


def import_file(path: Path) -> None:
    """Import a user's Python file.

    Raises:
        UserError: it is not there, or it fails; names the line.
    """
    if not os.path.isfile(path):  # False for a name that is too long, too
        raise UserError(f"--import {str(path)[:400]}: there is no such file; check its name")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or path.stem in sys.modules:
        raise UserError(f"--import {path}: no Python file (.py), or a module of that name exists; give it another name")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:  # anything, it is the user's code
        del sys.modules[path.stem]
        frames = traceback.extract_tb(error.__traceback__)
        where = ""
        for frame in frames:
            # The last frame in the user's own file: deeper ones are in what it calls.
            if frame.filename == str(path.absolute()):
                where = f" in line {frame.lineno}"
        raise UserError(f"--import {path}: {type(error).__name__}{where}: {error}") from error


class _PatientStream:
    """A stream that never stops a program: what cannot be printed is replaced, and nobody need listen."""

    def __init__(self, stream: Any):
        self._stream = stream
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _PrintableFormatter(logging.Formatter):
    """What libraries log, with escapes for what is no text."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).splitlines()))


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command line; turn a :class:`UserError` into one line on stderr.

    A closed pipe or a full disk behind stdout changes nothing of what is computed and recorded, nor the exit code.

    Returns:
        The exit code: what ``command`` returns (``None`` means 0), 2 for a :class:`UserError`, 130 for Ctrl-C.
    """
    warnings.showwarning = _show_warning
    # Libraries that log in place of a warning look the same.
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("warning: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING if _is_first_process() else logging.ERROR)
    with _patient_streams():
        try:
            _make_home()
            return _run_and_name_paths(command)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in REQUIRED_MODULES:
                raise
            print(f"error: {error.name} is not installed for {sys.executable}; {INSTALL_FIRST}", file=sys.stderr)
            return 2
        except UserError as error:
            prefix = "error"
            if not _is_first_process():
                prefix = f"error (process {os.environ['RANK']})"
            print(f"{prefix}: {printable(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as error:
            # What an evaluation raises says how to go on; of several processes the first one speaks.
            if _is_first_process():
                print("; ".join(filter(None, ["interrupted", str(error)])), file=sys.stderr)
            return 130


def _is_first_process() -> bool:
    """Whether this process is alone, or the first one of its group."""
    return os.environ.get("RANK", "0") == "0"


def _run_and_name_paths(command: Callable[[], int | None]) -> int:
    """Run a command; a path that the system cannot even look up is a UserError that names it."""
    try:
        return command() or 0
    except OSError as error:
        # Such a path would have to be checked wherever one is used; all other errors have their own words.
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise UserError(f"{str(error.filename)[:200]}: {error.strerror}; check the name") from error


@contextmanager
def _patient_streams() -> Iterator[None]:
    """Let stdout and stderr stop nothing, whatever is behind them."""
    streams = (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = map(_PatientStream, streams)
    try:
        yield
    finally:
        for stream in streams:
            try:
                stream.flush()
            except (OSError, ValueError):
                # Python would flush again at its end, fail, and end with an error.
                with suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            except AttributeError:  # a process without a console has no streams
                pass
        sys.stdout, sys.stderr = streams


def _make_home() -> None:
    """Where the user has no home folder, one that is temporary: libraries stop without it when they are imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.mkdtemp(prefix="clearclip-home-")
        warnings.warn(f"there is no home folder, so caches go to {os.environ['HOME']}; set HOME", stacklevel=2)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the source line that caused it."""
    if _is_first_process():
        print(f"warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)

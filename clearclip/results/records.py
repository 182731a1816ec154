"""Records of runs: a line of JSON each, appended as soon as a run ends. They are the source of all tables."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest
from clearclip.version import __version__

#: What a record must have to be shown at all.
_NEEDED = {"dataset": str, "method": str, "mIoU": (int, float)}
#: And what it must have, beside, to fill a cell of a table: records of earlier versions lack some of it.
_FACTS = ("dataset", "input", "model", "other", "weights", "method", "code", "environment")


def records_path(results: str | Path) -> Path:
    """The file of the records that belong to a workbook."""
    return Path(results).with_suffix(".jsonl")


def check_results_path(results: str | Path) -> Path:
    """``results`` as a path, checked before long work.

    Raises:
        UserError: it is no place for a workbook and its records.
    """
    path = Path(results).expanduser()
    if path.suffix.lower() != ".xlsx":
        raise UserError(f"results file {path} must end in .xlsx")
    files = (path, records_path(path), Path(f"{path}.lock"))
    try:
        folder = next(one for one in path.absolute().parents if one.exists())
        odd = [one for one in files if os.path.lexists(one) and not stat.S_ISREG(one.stat().st_mode)]
        closed = [one for one in (*files[1:], folder) if one.exists() and not os.access(one, os.W_OK)]
        why = [f"{one} is no ordinary file" for one in odd] + [f"{one} may not be written to" for one in closed]
        why += [] if folder.is_dir() else [f"{folder} is no folder"]
    except OSError as error:
        why = [error.strerror]
    if why:
        raise UserError(f"results cannot be kept in {path}: {why[0]}; name another place with --results")
    return path


def read_records(results: str | Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The records beside a workbook, oldest first, and remarks on lines that are left out or fill no cell.

    A record that fills no cell (of an earlier version, or changed by hand) has a ``"remark"`` that says why.
    """
    path, found, remarks = records_path(results), [], []
    data = path.read_bytes() if path.is_file() else b""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8"))
        except ValueError:
            record = None
        record = record if isinstance(record, dict) else {}
        if not all(isinstance(record.get(name), kind) for name, kind in _NEEDED.items()):
            remarks.append(f"{path.name}, line {number}: damaged, left out")
            continue
        why = _why_not(record)
        if why:
            record["remark"] = why
            remarks.append(f"{path.name}, line {number}: {why}; listed, but in no table")
        found.append(record)
    return found, remarks


def _why_not(record: Mapping[str, Any]) -> str:
    facts = record.get("facts")
    if not (isinstance(facts, dict) and all(name in facts for name in _FACTS)):
        return "recorded by an earlier version"
    rest = {name: value for name, value in record.items() if name != "checksum"}
    return "" if record.get("checksum") == digest(rest) else "changed after it was recorded"


def append(records: Sequence[Mapping[str, Any]], results: str | Path) -> list[dict[str, Any]]:
    """Append records, all or none; two processes may do this at once.

    Returns:
        The records as they are kept: with version, commit and checksum.

    Raises:
        UserError: they cannot be written. An evaluation's journal has all that is needed to record it later.
    """
    results = check_results_path(results)
    code = {"version": __version__, "commit": current_commit()}
    plain = json.loads(json.dumps([{**record, **code} for record in records]))
    kept = [{**record, "checksum": digest(record)} for record in plain]
    try:
        results.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{results}.lock"), open(records_path(results), "a+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            torn = size and file.read(1) != b"\n"
            lines = "".join(json.dumps(record) + "\n" for record in kept)
            file.write(b"\n" * bool(torn) + lines.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{records_path(results)} cannot be written ({error.strerror or error}); make room or name another place "
            "with --results, and run the same command with --resume: nothing is computed again"
        ) from error
    return kept


def current_commit() -> str:
    """The commit that this code runs from, with "+" where files differ from it; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    here = Path(__file__).resolve().parent
    try:
        return subprocess.check_output(command, cwd=here, stderr=subprocess.DEVNULL, text=True, timeout=10).strip()
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, or a slow disk
        return ""

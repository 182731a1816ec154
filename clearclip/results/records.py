"""The file of records: a line of JSON for each run, appended as soon as it ends. It is the source of all tables."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import stat
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from clearclip.results.record import SCHEMA_VERSION, Record, RecordError, parse_record
from clearclip.utils.continuation import command_to_continue
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest
from clearclip.version import __version__

#: The variable by which processes know the command that started them: its id begins those of their records.
COMMAND_VARIABLE = "CLEARCLIP_COMMAND"
CHANGED_BY_HAND = "changed after it was recorded"


def command_id() -> str:
    """The id of this command, or of the one that started this process for a part of its work."""
    if COMMAND_VARIABLE not in os.environ:
        os.environ[COMMAND_VARIABLE] = uuid.uuid4().hex
    return os.environ[COMMAND_VARIABLE]


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
    try:
        fault = _fault_of_place(path)
    except OSError as error:
        fault = error.strerror
    if fault:
        raise UserError(f"results cannot be kept in {path}: {fault}; name another place with --results")
    return path


def _fault_of_place(path: Path) -> str:
    """Why a workbook and its records cannot be kept at a path, or an empty text."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    records = records_path(path)
    for file in (path, records):
        if os.path.lexists(file) and not stat.S_ISREG(file.stat().st_mode):
            return f"{file} is no ordinary file"
    # A workbook that is read-only may stay so: the records are what counts.
    for target in (records, folder):
        if target.exists() and not os.access(target, os.W_OK):
            return f"{target} may not be written to"
    if not folder.is_dir():
        return f"{folder} is no folder"
    return ""


@contextmanager
def locked_records(results: str | Path) -> Iterator[IO[bytes]]:
    """The file of the records, opened to be read and appended to, while no other process writes to it."""
    with open(records_path(results), "a+b") as file:
        # The lock is on the file itself, so that no other file is left behind.
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def read_records(results: str | Path) -> tuple[list[Record], list[str]]:
    """The records beside a workbook, in the order of their lines, and remarks on lines that are left out or fill no
    cell.

    A record that fills no cell (of an earlier version, or changed by hand) has a ``remark`` that says why.
    """
    path = records_path(results)
    lines: list[bytes] = []
    if path.is_file():
        # Editors of some systems begin a file with a mark that is no text.
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    records: list[Record] = []
    remarks: list[str] = []
    line_by_text: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        if line in line_by_text:
            remarks.append(f"{where}: repeats line {line_by_text[line]}, left out")
            continue
        line_by_text[line] = number
        try:
            record = _read_line(line, number)
        except RecordError as error:
            remarks.append(f"{where}: damaged ({error}), left out")
            continue
        records.append(record)
        if record.remark:
            remarks.append(f"{where}: {record.remark}; listed, but in no table")
    return records, remarks


def find_record(results: str | Path, name: str) -> Record:
    """The record that a user means.

    Args:
        results: the workbook.
        name: the number of its line, as the list of runs has it, the first digits of its fingerprint, or "last".

    Raises:
        UserError: there is none, or there are several.
    """
    records = read_records(results)[0]
    if not records:
        raise UserError(f"{records_path(results)} has no records to explain; name another workbook (--results)")
    # Runs on several machines may have been joined in one file, so that the last line need not be the last run.
    if name == "last":
        return max(records, key=lambda record: (record.moment, record.line))
    matching = [record for record in records if str(record.line) == name]
    matching = matching or [record for record in records if len(name) > 3 and record.fingerprint.startswith(name)]
    if not matching:
        lines = ", ".join(str(record.line) for record in records[-20:])
        raise UserError(f"no run {name}; give the number of its line ({lines}) or its fingerprint")
    return matching[-1]


def _read_line(line: bytes, number: int) -> Record:
    """The record of a line.

    Raises:
        RecordError: it is none.
    """
    try:
        # NaN and infinity, which JSON does not have, become texts, and fit no field that is a number.
        data = json.loads(line.decode(), parse_constant=str, object_pairs_hook=_without_repetition)
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError("is no JSON") from error
    record = parse_record(data, number)
    checksum = data.pop("checksum", None)
    if not record.remark and checksum != digest(data):
        return replace(record, remark=CHANGED_BY_HAND)
    return record


def _without_repetition(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one that says two things of one name is none."""
    data = dict(members)
    if len(data) != len(members):
        raise RecordError("says something twice")
    return data


def append(records: Sequence[Mapping[str, Any]], results: str | Path) -> list[Record]:
    """Append records, all or none; two processes may do this at once.

    Args:
        records: as :attr:`clearclip.evaluation.metric.Evaluation.record` gives them.
        results: the workbook.

    Returns:
        The records as they are kept.

    Raises:
        UserError: they cannot be written. An evaluation's journal has all that is needed to record it later.
    """
    results = check_results_path(results)
    code = {"version": __version__, "commit": current_commit(), "schema": SCHEMA_VERSION}
    lines: list[bytes] = []
    for record in records:
        data = _as_json({**record, **code, "id": f"{command_id()}-{uuid.uuid4().hex[:16]}"})
        lines.append(json.dumps({**data, "checksum": digest(data)}).encode())
    try:
        # Read back before they are written: a record that could not be read would be lost later.
        written = [_read_line(line, number) for number, line in enumerate(lines, start=1)]
    except RecordError as error:
        raise UserError(f"this run cannot be recorded: it {error}; leave out what its config adds") from error
    try:
        results.parent.mkdir(parents=True, exist_ok=True)
        with locked_records(results) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            last_line_is_torn = size and file.read(1) != b"\n"
            file.write(b"\n" * bool(last_line_is_torn) + b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{records_path(results)} cannot be written ({error.strerror or error}); make room, or name "
            f"another place with --results; {command_to_continue()} records it and computes nothing again"
        ) from error
    return written


def _as_json(data: Any) -> Any:
    """Data as JSON has it; NaN and infinity, which it does not have, as texts."""
    return json.loads(json.dumps(data), parse_constant=str)


def current_commit() -> str:
    """The commit that this code runs from, with "+" where files differ from it; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    here = Path(__file__).resolve().parent
    try:
        return subprocess.check_output(command, cwd=here, stderr=subprocess.DEVNULL, text=True, timeout=10).strip()
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, or a slow disk
        return ""

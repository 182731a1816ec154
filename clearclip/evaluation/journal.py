"""What an evaluation has finished, on disk as it goes: an interrupted run resumes where it stopped."""

from __future__ import annotations

import datetime
import json
import re
import uuid
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mmengine import dist

from clearclip.evaluation.processes import on_main_process
from clearclip.utils.continuation import command_to_continue
from clearclip.utils.errors import UserError
from clearclip.utils.files import write_text_atomically
from clearclip.utils.fingerprint import differences, digest

#: Where a flattened confusion matrix is not zero, and what is there.
Counts = tuple[list[int], list[int]]
FACTS_FILE = "facts.json"
LOCK_FILE = "running.lock"
#: Files of this kind are the only ones that are ever removed.
JOURNAL_FILES = re.compile(r"rank\d+-[0-9a-f]{8}\.jsonl|facts\.json|\.facts-.*\.json")


def latest_start(folder: Path) -> datetime.datetime | None:
    """When the latest run with a journal in this folder began for the first time; None where there is none.

    A run that is resumed began when it was not.
    """
    # The facts are written when a run starts, and read when it is resumed.
    times = [path.stat().st_mtime for path in folder.glob(f"*/{FACTS_FILE}")]
    if not times:
        return None
    return datetime.datetime.fromtimestamp(max(times), datetime.timezone.utc)


def is_work_dir(folder: Path) -> bool:
    """Whether runs keep their journals and logs in this folder."""
    return any(folder.glob(f"journal/*/{FACTS_FILE}"))


class Journal:
    """Confusion counts per image in JSON lines, a file per process, in a folder that is named after the run's facts.

    A line is written and flushed at once, with a checksum. One that is cut short or damaged counts as not there, and
    its image is computed again. While a run is going on its folder is locked, so that the same command a second time
    does not remove what the first one writes. Other runs have other folders.

    Args:
        folder: where the folders of all runs are.
        facts: everything that changes a result.
        images, methods: how many there are.
        resume: "no" starts again, "yes" resumes, "auto" resumes if there is something with these facts.

    Attributes:
        finished: index of an image → its counts, by method, of those that earlier sessions finished.
        metric_results: index of an image → what other metrics counted, a text for each (None where it could not be
            stored).

    Raises:
        UserError: resume with nothing to resume (names in what the runs that are there differ); the folder belongs to
            a run that is going on; no place for files.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], images: int, methods: int, resume: str = "no"):
        self.folder = Path(folder) / digest(facts)[:16]
        self.images, self.methods = images, methods
        self._lock = FileLock(self.folder / LOCK_FILE)
        # Other hosts may not see this folder, so one process tells what is finished.
        entries = on_main_process(lambda: self._prepare(facts, resume))
        self.finished: dict[int, list[Counts]] = {entry["image"]: entry["counts"] for entry in entries}
        self.metric_results: dict[int, list[str | None]] = {}
        for entry in entries:
            self.metric_results[entry["image"]] = entry.get("others", [])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.folder / f"rank{dist.get_rank()}-{uuid.uuid4().hex[:8]}.jsonl", "w")  # noqa: SIM115
        except OSError as error:
            raise self._unusable(error) from error

    def add(self, image: int, counts: list[Counts], metric_results: Sequence[str | None] = ()) -> None:
        """Note a finished image.

        Args:
            image: its index in the dataset.
            counts: of each method.
            metric_results: what other metrics counted, a text for each.

        Raises:
            UserError: the file cannot grow.
        """
        entry: dict[str, Any] = {"image": image, "counts": counts}
        if metric_results:
            entry["others"] = list(metric_results)
        text = json.dumps(entry, separators=(",", ":"))
        try:
            self._file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self._file.name} cannot grow ({error.strerror}); make room; what is finished is kept, and "
                f"{command_to_continue()} goes on"
            ) from error

    def close(self) -> None:
        """Close this process's file, and let other runs have the folder."""
        try:
            self._file.close()
        except OSError:  # what could not be written has been said by add()
            pass
        finally:
            self._lock.release()

    def _prepare(self, facts: Mapping[str, Any], resume: str) -> list[dict[str, Any]]:
        """Make, empty or read the folder, and lock it; the entries of finished images."""
        try:
            has_journal = (self.folder / FACTS_FILE).is_file()
            if resume == "yes" and not has_journal:
                raise UserError(f"--resume: {self._why_nothing(facts)}; start without --resume")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._acquire()
            if has_journal and resume != "no":
                return self._read()
            if has_journal:
                self._remove_journal_files()
            write_text_atomically(self.folder / FACTS_FILE, json.dumps(facts, indent=1, sort_keys=True))
            return []
        except OSError as error:
            raise self._unusable(error) from error

    def _remove_journal_files(self) -> None:
        """Remove what earlier runs of these facts wrote; any other file in the folder is somebody's own."""
        for path in self.folder.iterdir():
            if JOURNAL_FILES.fullmatch(path.name) and path.is_file():
                path.unlink()

    def _acquire(self) -> None:
        """Lock the folder, for as long as this process lives or until it is closed."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"the same evaluation is running already, in {self.folder}; wait for it, or give another folder as "
                "--workdir"
            ) from error

    def _unusable(self, error: OSError) -> UserError:
        return UserError(f"{self.folder} cannot be used ({error.strerror}); give another folder as --workdir")

    def _why_nothing(self, facts: Mapping[str, Any]) -> str:
        """What the latest run that is there did otherwise."""
        candidates = sorted(self.folder.parent.glob(f"*/{FACTS_FILE}"), key=lambda path: path.stat().st_mtime)
        for path in reversed(candidates):
            try:
                earlier_facts = json.loads(path.read_text(encoding="utf-8"))
                return "the settings differ (" + "; ".join(differences(earlier_facts, facts)[:5]) + ")"
            except (OSError, ValueError, AttributeError):
                continue
        return f"nothing to resume in {self.folder.parent}"

    def _read(self) -> list[dict[str, Any]]:
        """The entries of all processes of all sessions, each image once."""
        entry_by_image: dict[int, dict[str, Any]] = {}
        damaged_lines = 0
        for path in sorted(self.folder.glob("rank*.jsonl")):
            if not path.is_file():
                continue
            for line in path.read_bytes().splitlines():
                if not line.strip():
                    continue
                entry = self._parse(line)
                if entry is None:
                    damaged_lines += 1
                else:
                    entry_by_image[entry["image"]] = entry
        if damaged_lines:
            fault = f"{self.folder}: {damaged_lines} damaged lines; their images are computed again"
            warnings.warn(fault, stacklevel=6)
        return list(entry_by_image.values())

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        """The entry in a line; None where the line is damaged or belongs to another dataset."""
        checksum, _, text = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            return None
        entry = json.loads(text)
        fits = 0 <= entry["image"] < self.images and len(entry["counts"]) == self.methods
        return entry if fits else None

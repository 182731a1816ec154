"""What an evaluation has finished, on disk as it goes: an interrupted run resumes where it stopped."""

from __future__ import annotations

import json
import re
import uuid
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine import dist

from clearclip.evaluation.processes import on_main_process
from clearclip.utils.errors import UserError
from clearclip.utils.files import write_text_atomically
from clearclip.utils.fingerprint import differences, digest

#: Where a flattened confusion matrix is not zero, and what is there.
Counts = tuple[list[int], list[int]]
_FACTS, _OURS = "facts.json", re.compile(r"rank\d+-[0-9a-f]{8}\.jsonl|facts\.json|\.facts-.*\.json")


class Journal:
    """Confusion counts per image in JSON lines, a file per process, in a folder that is named after the run's facts.

    A line is written and flushed at once, with a checksum; one that is cut short or damaged counts as not there, and
    its image is computed again. Other runs have other folders, and only files of this kind are ever removed.

    Args:
        folder: where the folders of all runs are.
        facts: everything that changes a result.
        images, methods: how many there are.
        resume: "no" starts again, "yes" resumes, "auto" resumes if there is something with these facts.

    Attributes:
        finished: index of an image → its counts, by method, of those that earlier sessions finished.

    Raises:
        UserError: resume with nothing to resume (names in what the runs that are there differ); no place for files.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], images: int, methods: int, resume: str = "no"):
        self.folder = Path(folder) / digest(facts)[:16]
        self.images, self.methods = images, methods
        # Other hosts may not see this folder, so one process tells what is finished.
        self.finished: dict[int, list[Counts]] = on_main_process(lambda: self._prepare(facts, resume))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.folder / f"rank{dist.get_rank()}-{uuid.uuid4().hex[:8]}.jsonl", "w")  # noqa: SIM115
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> UserError:
        return UserError(f"{self.folder} cannot be used ({error.strerror}); give another folder as --workdir")

    def _prepare(self, facts: Mapping[str, Any], resume: str) -> dict[int, list[Counts]]:
        try:
            there = (self.folder / _FACTS).is_file()
            if resume == "yes" and not there:
                raise UserError(f"--resume: {self._why_nothing(facts)}; start without --resume")
            if resume == "no" and there:
                for path in self.folder.iterdir():
                    if _OURS.fullmatch(path.name) and path.is_file():
                        path.unlink()
                there = False
            if not there:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text_atomically(self.folder / _FACTS, json.dumps(facts, indent=1, sort_keys=True))
                return {}
            return self._read()
        except OSError as error:
            raise self._unusable(error) from error

    def _why_nothing(self, facts: Mapping[str, Any]) -> str:
        """What the latest run that is there did otherwise."""
        others = sorted(self.folder.parent.glob(f"*/{_FACTS}"), key=lambda path: path.stat().st_mtime)
        for path in reversed(others):
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
                return "the settings differ (" + "; ".join(differences(before, facts)[:5]) + ")"
            except (OSError, ValueError, AttributeError):
                continue
        return f"nothing to resume in {self.folder.parent}"

    def _read(self) -> dict[int, list[Counts]]:
        finished, damaged = {}, 0
        for path in sorted(self.folder.glob("rank*.jsonl")):
            lines = path.read_bytes().split(b"\n") if path.is_file() else []
            for line in filter(bytes.strip, lines):
                if entry := self._parse(line):
                    finished[entry["image"]] = entry["counts"]
                else:
                    damaged += 1
        if damaged:
            warnings.warn(f"{self.folder}: {damaged} damaged lines; their images are computed again", stacklevel=6)
        return finished

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        checksum, _, text = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            return None
        entry = json.loads(text)
        fits = 0 <= entry["image"] < self.images and len(entry["counts"]) == self.methods
        return entry if fits else None

    def add(self, image: int, counts: list[Counts]) -> None:
        """Note a finished image."""
        text = json.dumps({"image": image, "counts": counts}, separators=(",", ":"))
        self._file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")
        self._file.flush()

    def close(self) -> None:
        """Close this process's file."""
        self._file.close()

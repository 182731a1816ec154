"""What an evaluation has finished, on disk as it goes: a killed run goes on where it stopped."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from mmengine import dist

from clearclip.utils.errors import UserError
from clearclip.utils.files import write_text_atomically

#: Where a flattened confusion matrix is not zero, and what is there.
Counts = tuple[list[int], list[int]]


class Journal:
    """Confusion counts per image in JSON lines, a file per process, beside the settings they belong to.

    A line is written and flushed at once; one that a kill has cut short is not counted.

    Args:
        folder: where the files are.
        settings: everything that changes a result.
        resume: "no" clears what is there, "yes" goes on with it, "auto" goes on with it if it has these settings.

    Attributes:
        finished: counts, by method, of the images that earlier runs finished.
        failures: images that earlier runs skipped, with the reason; they are tried again.

    Raises:
        UserError: resume with other settings (names them), or with nothing to resume; no place for the files.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], resume: str = "no"):
        self.folder = Path(folder)
        self.finished: dict[int | str, list[Counts]] = {}
        self.failures: dict[str, str] = {}
        state: list[Any] = [None, None, None]
        if dist.get_rank() == 0:
            try:
                self._prepare(settings, resume)
                state = [None, self.finished, self.failures]
            except UserError as error:
                state[0] = str(error)
            except OSError as error:
                state[0] = f"{self.folder} cannot be used ({error.strerror}); give another folder as --work-dir"
        # Other hosts may not see this folder, so rank 0 tells what is finished.
        dist.broadcast_object_list(state)
        error, self.finished, self.failures = state
        if error is not None:
            raise UserError(error)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.folder / f"rank{dist.get_rank()}-{uuid.uuid4().hex[:8]}.jsonl", "w")  # noqa: SIM115

    def _prepare(self, settings: dict[str, Any], resume: str = "no") -> None:
        settings = json.loads(json.dumps(settings))
        path = self.folder / "settings.json"
        before = self._read_settings(path)
        if resume == "auto" and before != settings:
            resume = "no"
        if resume != "no":
            if before is None:
                raise UserError(f"--resume: {path} is missing or damaged; start without --resume")
            self._check_same(before, settings)
            for file in sorted(self.folder.glob("rank*.jsonl")):
                self._read(file)
        elif self.folder.is_dir():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, json.dumps(settings, indent=1, sort_keys=True))

    @staticmethod
    def _read_settings(path: Path) -> dict[str, Any] | None:
        """What an earlier run noted; None where there is nothing that can be read."""
        try:
            return dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @staticmethod
    def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
        different = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        if different:
            shown = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in different)
            raise UserError(f"--resume: the settings differ ({shown}); use the same ones or start without --resume")

    def _read(self, file: Path) -> None:
        for line in file.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            entry = json.loads(line)
            if "failure" in entry:
                self.failures[entry["image"]] = entry["failure"]
            else:
                self.finished[entry["image"]] = entry["counts"]

    def add_counts(self, image: int | str, counts: list[Counts]) -> None:
        """Note a finished image."""
        self._write({"image": image, "counts": counts})

    def add_failure(self, image: str, reason: str) -> None:
        """Note an image that was skipped."""
        self._write({"image": image, "failure": reason})

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close this process's file."""
        self._file.close()

"""Notices where another program writes images or masks while they are evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.datasets import entries
from clearclip.evaluation.run_facts import dataset_facts
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import file_state


class DataWatch:
    """Compares a dataset's files with what they were when this object was made: before they are hashed.

    Args:
        dataset: the images that a run consists of.
    """

    def __init__(self, dataset: CheckedDataset):
        self._dataset = dataset
        self._states = self._file_states()

    def _file_states(self) -> dict[Path, tuple[int, ...]]:
        paths: set[Path] = set()
        for _, info in islice(entries(self._dataset.dataset), self._dataset.total):
            paths.update(Path(info[key]) for key in ("img_path", "seg_map_path"))
        return {path: file_state(path) for path in paths if path.is_file()}

    def check(self, facts: Mapping[str, Any]) -> None:
        """Compare the files with a run's facts; only those whose size or times differ are read again.

        Raises:
            UserError: images or masks no longer hold what they held.
        """
        states = self._file_states()
        written = [path for path, state in self._states.items() if states.get(path) != state]
        if not written:
            return
        try:
            is_changed = {**facts["dataset"], **dataset_facts(self._dataset)} != facts["dataset"]
        except OSError:  # it is gone
            is_changed = True
        if is_changed:
            raise UserError(
                f"{written[0]} was changed by another program during the run; nothing was recorded, start again when "
                "the data stay as they are"
            )

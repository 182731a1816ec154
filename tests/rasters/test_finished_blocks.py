"""Labels of an interrupted map are there again, those of another map are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearclip.rasters.finished_blocks import FinishedBlocks, unfinished_map
from clearclip.utils.errors import UserError

BLOCKS = [(slice(top, min(top + 4, 6)), slice(edge, min(edge + 4, 10))) for top in (0, 4) for edge in (0, 4, 8)]
LABELS = np.random.default_rng(0).integers(0, 3, (6, 10)).astype(np.uint16)


def test_blocks_and_what_is_left_of_them(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "map.tif"
    with pytest.raises(KeyboardInterrupt), unfinished_map(path, "digest", BLOCKS, np.uint16) as finished:
        for rows, columns in BLOCKS[:4]:
            finished.append(LABELS[rows, columns])
        raise KeyboardInterrupt
    with unfinished_map(path, "digest", BLOCKS, np.uint16) as finished:
        assert finished.count == 4
        for rows, columns in BLOCKS[4:]:
            finished.append(LABELS[rows, columns])
        np.testing.assert_array_equal(np.concatenate(list(finished.strips())), LABELS)
        assert finished.count_pixels(2).tolist() == np.bincount(LABELS.ravel())[:2].tolist()
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("note", ["{", "[]", '{"of": "another", "blocks": 1}', '{"of": "digest"}'])
def test_notes_that_do_not_count(note: str, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(bytes(40))
    (tmp_path / "a.part.json").write_text(note)
    finished = FinishedBlocks(tmp_path / "a.part", "digest", BLOCKS, np.uint8)
    assert finished.count == 0
    finished.close()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot be written"),
        unfinished_map(tmp_path / "file" / "a.tif", "", [], np.uint8),
    ):
        pass

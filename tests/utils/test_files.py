"""Files are whole or not there, and places that cannot be written are said before long work."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, temporary_for_user, write_atomically, write_bytes


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    write_bytes(path, b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    with pytest.raises(ZeroDivisionError), temporary_for_user(path) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == path.parent
        temporary.write_bytes(b"half")
        1 / 0  # noqa: B018
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        path = write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.tif", f"{tmp_path}/nul\0l.tif"):
        with pytest.raises(UserError, match=r"cannot be written .*; choose another place"):
            write_bytes(path, b"")
        with pytest.raises(UserError, match="cannot be written"), temporary_for_user(Path(path)):
            pytest.fail("the block must not run")


def test_folders_are_looked_at_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_folder("--out", tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    for folder, words in (
        (tmp_path / "file" / "sub", "is a file; choose another folder"),
        (f"{tmp_path}/a\0b", "is no name of a folder"),
        (tmp_path / ("x" * 300), "choose another folder"),
    ):
        with pytest.raises(UserError, match=f"--out .*{words}"):
            check_folder("--out", folder)

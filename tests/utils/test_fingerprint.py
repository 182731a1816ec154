"""Files are hashed once, and again when they were written; differences are named."""

from __future__ import annotations

import os

from clearclip.utils.fingerprint import differences, file_state, hash_file


def test_a_file_is_read_again_when_it_was_written(tmp_path):
    """Also where size and modification time are as before."""
    path = tmp_path / "mask.png"
    path.write_bytes(b"before")
    before, state = hash_file(path), path.stat()
    first = file_state(path)
    path.write_bytes(b"behind")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file_state(path) != first
    assert hash_file(path) != before


def test_differences_are_named():
    before, now = {"model": {"prob_thd": 0.1, "post": None}}, {"model": {"prob_thd": 0.2, "post": None}}
    assert differences(before, now) == ["model.prob_thd was 0.1, is 0.2"]

"""Plain data is equal where the meaning is equal, on any machine."""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
import torch

from clearclip.utils.fingerprint import differences, digest, file_state, hash_file, plain_data


class Thing:
    """With attributes of several kinds."""

    def __init__(self, value):
        self.value, self.itself = value, self


def test_equal_meanings():
    assert digest(plain_data({"a": 1, "b": (2.0, 3)})) == digest(plain_data({"b": [2, 3.0], "a": 1}))
    assert plain_data(torch.arange(3)) == plain_data(torch.arange(6)[::2] // 2)
    assert plain_data(np.float32(2)) == plain_data(np.array(2, np.float32))
    assert plain_data(Thing(1)) == plain_data(Thing(1.0)) != plain_data(Thing(2))
    assert plain_data({1, 2}) == plain_data({2, 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (eval("lambda x: x"), eval("lambda x: -x")),
        (eval("lambda x=1: x"), eval("lambda x=2: x")),
        (True, 2),
    ],
)
def test_other_meanings(one, other):
    assert digest(plain_data(one)) != digest(plain_data(other))


def test_no_address_is_in_it():
    assert "0x" not in str(plain_data([Thing, Thing(1), len, object(), functools.lru_cache(len)]))


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

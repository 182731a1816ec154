"""Plain data is equal where the meaning is equal, on any machine."""

from __future__ import annotations

import functools
import itertools
import re
import threading

import numpy as np
import pytest
import torch

from clearclip.utils.fingerprint import digest
from clearclip.utils.plain_data import plain_data


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


class Slotted:
    """Keeps its value where no dict is."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


def multiplied_by(factor):
    """A function that reads a variable from around it."""
    return lambda x: factor * x


def with_global(value):
    """A function, typed in, that reads a number of its module."""
    names = {"FACTOR": value, "__name__": "typed"}
    exec("def scaled(x):\n    return FACTOR * x", names)
    return names["scaled"]


@pytest.mark.parametrize("make", [Slotted, multiplied_by, with_global, lambda n: [n].count])
def test_what_an_object_or_a_function_holds_counts(make):
    """In slots, in the variables around a function, in the list of a bound method."""
    assert digest(plain_data(make(2))) == digest(plain_data(make(2)))
    assert digest(plain_data(make(2))) != digest(plain_data(make(3)))


def test_what_cannot_be_pickled_is_known_by_its_class():
    assert plain_data(threading.Lock()) == plain_data(threading.Lock())
    assert plain_data(itertools.count(3)) != plain_data(itertools.count(4))
    assert plain_data(re.compile("a")) != plain_data(re.compile("b"))
    assert plain_data(len) != plain_data(max)
    assert plain_data(np.sin) != plain_data(np.cos)

"""Values of options that are let through, converted or refused with what they must be."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from clearclip.utils.errors import UserError
from clearclip.utils.validators import choice, did_you_mean, of_type


@pytest.mark.parametrize(
    ("types", "limits", "value"),
    [
        ((int,), {"low": 0}, 0),
        ((int, None), {"low": 1}, None),
        ((int, float), {"low": 0, "high": 1}, 0.5),
        ((bool,), {}, True),
        ((str, bool), {}, False),
        ((Mapping,), {}, {"a": 1}),
        ((object,), {}, None),
    ],
)
def test_values_that_fit(types: tuple, limits: dict, value: object) -> None:
    assert of_type(*types, **limits)("option", value) is value


def test_whole_numbers_become_floats_where_floats_are_meant() -> None:
    number = of_type(int, float)("option", 1)
    assert number == 1 and type(number) is float
    assert type(of_type(int)("option", 1)) is int


@pytest.mark.parametrize(
    ("types", "limits", "value", "words"),
    [
        ((int,), {"low": 1}, 0, "option must be a whole number from 1, not 0"),
        ((int, float), {"low": 0, "high": 1}, 2, "option must be a number from 0 to 1, not 2"),
        ((int, float), {"high": 1}, 2, "option must be a number to 1, not 2"),
        ((int, float, None), {}, "1", "option must be a number or None, not '1'"),
        ((int, float), {}, True, "option must be a number, not True"),
        ((int, float), {}, math.nan, "option must be a number, not nan"),
        ((int, float), {}, 10**400, "option must be a number, not 1"),
        ((int, None), {}, 1.5, "option must be a whole number or None, not 1.5"),
        ((str,), {}, None, "option must be a string, not None"),
    ],
)
def test_values_that_do_not_fit(types: tuple, limits: dict, value: object, words: str) -> None:
    with pytest.raises(UserError) as error:
        of_type(*types, **limits)("option", value)
    assert str(error.value).startswith(words)


def test_choices() -> None:
    assert choice("a", None)("option", None) is None
    with pytest.raises(UserError, match="unknown option 'c'; choose from a, b"):
        choice("a", "b", None)("option", "c")
    assert did_you_mean("slide_crops", ["slide_crop", "seed"]) == "did you mean slide_crop?"
    assert did_you_mean("clearclip", ["GEM", "ClearCLIP"]) == "did you mean ClearCLIP?"
    assert did_you_mean("x", ["slide_crop", "seed"]) == "choose from slide_crop, seed"

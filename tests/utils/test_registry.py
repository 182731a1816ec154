"""Dataclasses with checked options, by their names."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from clearclip.utils.errors import UserError
from clearclip.utils.registry import Configurable, Registry, option
from clearclip.utils.validators import of_type

SHAPES: Registry = Registry()


class Shape(Configurable):
    registry = SHAPES


@SHAPES.register_module("Circle")
@dataclass(frozen=True)
class Round(Shape):
    radius: float = option(1.0, of_type(int, float, low=0), unit="cm")
    hole: Shape | None = None
    centre: tuple[int, int] = (0, 0)


def test_options_are_checked_and_written_as_a_config_has_them() -> None:
    ring = Round(radius=2, hole=Round())
    assert type(ring.radius) is float and ring.name == "Circle"
    hole = {"type": "Circle", "radius": 1.0, "hole": None, "centre": [0, 0]}
    assert ring.settings == {"type": "Circle", "radius": 2.0, "hole": hole, "centre": [0, 0]}
    with pytest.raises(UserError, match="radius of Circle must be a number from 0, not -1"):
        Round(radius=-1)


def test_a_name_is_given_once() -> None:
    with pytest.raises(KeyError, match="Circle is already registered"):
        SHAPES.register_module("Circle", Shape)
    assert SHAPES["Circle"] is Round

"""Known ways to a wrong number, as data with sources (``traps.csv``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from clearclip.results.data_files import read_csv
from clearclip.results.protocols import Difference
from clearclip.results.record import Record

#: A number this near to a known one, in points, looks like it: more than half precision and versions move.
NEAR = 0.3


@dataclass(frozen=True)
class Trap:
    """A known way to a wrong number.

    Attributes:
        trap: what it is called.
        setting, value: the setting that is wrong, and with which value; an empty value is any but the published one.
        published: the right value, where it is one.
        dataset, method: where it was seen; empty: anywhere.
        miou, right_miou: the number that it gave, and that it should be, in percent; None where nobody published it.
        source: who reported it.
        remedy: what to do.
    """

    trap: str
    setting: str
    value: str
    published: str
    dataset: str
    method: str
    miou: float | None
    right_miou: float | None
    source: str
    remedy: str

    def concerns(self, record: Record) -> bool:
        """Whether it was seen on the run's dataset and method."""
        return self.dataset in ("", record.dataset) and self.method in ("", record.method)

    def is_difference(self, difference: Difference) -> bool:
        """Whether it is this deviation from a protocol."""
        return self.setting == difference.setting and self.value in ("", _spelled(difference.measured))

    def gave_number(self, miou: float | None) -> bool:
        """Whether a number looks like the one that it gave."""
        return miou is not None and self.miou is not None and abs(miou - self.miou) <= NEAR


def _spelled(value: object) -> str:
    """A setting's value as ``traps.csv`` spells it: 0.0 is 0."""
    # JSON keeps 0.0 and 0 apart, and people write either.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    return str(value)


@lru_cache
def traps() -> tuple[Trap, ...]:
    """All known traps."""
    return tuple(_read_trap(line) for line in read_csv("traps.csv"))


def _read_trap(line: Mapping[str, str]) -> Trap:
    """A line of ``traps.csv``."""
    return Trap(
        trap=line["trap"],
        setting=line["setting"],
        value=line["value"],
        published=line["published"],
        dataset=line["dataset"],
        method=line["method"],
        miou=_optional_number(line["miou"]),
        right_miou=_optional_number(line["right_miou"]),
        source=line["source"],
        remedy=line["remedy"],
    )


def _optional_number(text: str) -> float | None:
    return float(text) if text else None

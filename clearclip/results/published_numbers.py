"""Numbers that others published, as data (``published.csv``), and where each one was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clearclip.results.data_files import read_csv, read_options
from clearclip.results.table_definitions import Row, Table

#: What the column ``table`` of ``published.csv`` says of a number that others than the authors measured.
_RERUN = "rerun"
#: What the column ``dataset`` says of the mean of a row.
AVERAGE = "average"


@dataclass(frozen=True)
class PublishedNumber:
    """A number of a paper, a README or an independent run.

    Attributes:
        miou: in percent.
        source: where it was read.
        settings: options of the model that it was measured with, where they are not its protocol's.
        rerun_by: who measured it again; empty where it is the authors' own.
    """

    miou: float
    source: str
    settings: Mapping[str, Any]
    rerun_by: str

    @property
    def is_second_hand(self) -> bool:
        """Whether it was not read from the paper or repository of the method itself."""
        return "second-hand" in self.source


@lru_cache
def published_numbers() -> dict[tuple[str, ...], list[PublishedNumber]]:
    """(table, protocol, vit, system, dataset) → the numbers, in the order of the file."""
    numbers: dict[tuple[str, ...], list[PublishedNumber]] = {}
    for line in read_csv("published.csv"):
        added = " + ClearCLIP" if line["clearclip"] == "yes" else ""
        key = (line["table"], line["protocol"], line["vit"], line["row"] + added, line["dataset"])
        # A number with settings of its own stands in no cell that has others.
        settings = read_options(line["settings"])
        number = PublishedNumber(float(line["miou"]), line["source"], settings, line["rerun_by"])
        numbers.setdefault(key, []).append(number)
    return numbers


def find_published(table: Table, row: Row, dataset: str, protocol: str) -> PublishedNumber | None:
    """The number that was published for a cell: by the same protocol, and with the settings that the row has here."""
    # The first table that has the number is the one that it was published in.
    for name in table.numbers_of:
        for system in (row.system, *row.published_as):
            for number in published_numbers().get((name, protocol, row.vit, system, dataset), []):
                if number.settings == row.settings_for(dataset):
                    return number
    return None


def find_reruns(row: Row, dataset: str, protocol: str) -> dict[str, PublishedNumber]:
    """Independent re-runs of a cell: who measured it → the number."""
    reruns: dict[str, PublishedNumber] = {}
    for system in (row.system, *row.published_as):
        for number in published_numbers().get((_RERUN, protocol, row.vit, system, dataset), []):
            if number.settings == row.settings_for(dataset):
                reruns.setdefault(number.rerun_by, number)
    return reruns

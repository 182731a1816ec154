"""Known traps are data with sources."""

from __future__ import annotations

from clearclip.results.table_definitions import tables
from clearclip.results.traps import NEAR, traps


def test_traps_are_data_with_sources():
    datasets = {dataset for table in tables().values() for dataset in table.datasets}
    for trap in traps():
        assert trap.trap and trap.setting and trap.source and trap.remedy
        assert trap.dataset in {"", *datasets}
        assert (trap.miou is None) == (trap.right_miou is None)
        assert trap.miou is None or abs(trap.miou - trap.right_miou) > NEAR

"""What an import leaves behind of the pause of Python's collector: nothing but older objects."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from clearclip.utils.collector_pause import collector_paused

#: Prints whether the collector runs, how many objects are frozen, and whether a new list is in the oldest generation.
PROBE = """
import gc
{before}
from clearclip import ClearCLIP
from clearclip.utils.collector_pause import collector_paused
with collector_paused():
    garbage = [[number] for number in range(10)]
    assert not gc.isenabled()
print(gc.isenabled(), gc.get_freeze_count() > 0, any(item is garbage for item in gc.get_objects(generation=2)))
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [("", "True False True"), ("gc.disable()", "False False True"), ("gc.freeze()", "True True False")],
)
def test_the_collector_of_a_process_is_as_it_was(before: str, expected: str) -> None:
    """Whoever has frozen objects of their own keeps them frozen."""
    command = [sys.executable, "-c", PROBE.format(before=before)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == expected


def test_an_error_passes_and_the_collector_goes_on() -> None:
    with pytest.raises(KeyError), collector_paused():
        raise KeyError
    assert gc.isenabled()

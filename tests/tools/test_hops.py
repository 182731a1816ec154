"""How many calls a reader passes through from an entry point to softmax(q qᵀ)."""

from __future__ import annotations

import pytest
from conftest import load_tool


@pytest.mark.parametrize(("entry", "most_calls"), [("segment", 7), ("evaluate", 11)])
def test_calls_from_an_entry_point_to_the_attention(entry, most_calls):
    tool = load_tool("hops")
    names = [function.co_name for function in tool.calls_to_attention(getattr(tool, entry))]
    assert names[0] == {"segment": "segment", "evaluate": "run_eval"}[entry] and names[-1] == "gather"
    assert len(names) - 1 <= most_calls, names

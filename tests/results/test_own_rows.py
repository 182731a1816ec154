"""Methods that no published row has are rows of their own, with a mark."""

from __future__ import annotations

import json

import pytest
from recorded_runs import CLEARCLIP, evaluation, make_record

from clearclip.results.cells import Cell, fill_row, make_cell, notes_of
from clearclip.results.own_rows import own_rows
from clearclip.results.record import parse_record
from clearclip.results.table_definitions import find_table

TABLE = find_table("2")


@pytest.mark.parametrize(("label", "source"), [("Neighbours", "01"), ("NACLIP (sigma=2)", None), ("ClearCLIP", "01")])
def test_methods_that_no_published_row_has_are_rows_of_their_own(label, source):
    """Own code, other options of a released method, and own code under a published name."""
    changes = {} if source is None else {"method__source": source}
    records = [make_record("voc20", 700, method__label=label, **changes), make_record("voc20", 800)]
    (row,) = own_rows(TABLE, records, "clearclip")
    assert (row.name, row.is_own, row.vit) == (label, True, "ViT-B/16")
    assert fill_row(TABLE, row, records, "clearclip")[0].measured == 35
    assert fill_row(TABLE, CLEARCLIP, records, "clearclip")[0].measured == 40
    assert notes_of([(row, [Cell()])])[0].startswith("‡ no published row")
    assert own_rows(find_table("ablation"), records, "clearclip") == [], "of methods, not of switches"


def test_own_rows_show_what_no_published_cell_may():
    """Code of the user's own, as records have it, and the reasons that it gives."""
    data = json.loads(json.dumps(evaluation("voc20", 700, method__label="Neighbours").record))
    data["facts"]["own code"] = {"file neighbours.py": "01"}
    data["not_published_because"] = ["own code was imported: neighbours.py", "Neighbours is a method of your own"]
    record = parse_record(data)
    (row,) = own_rows(TABLE, [record], "clearclip")
    assert make_cell(TABLE, row, "voc20", [record], "clearclip").measured == 35
    # Under a published name, it is no published run.
    data["method"] = data["facts"]["method"]["label"] = "ClearCLIP"
    record = parse_record(data)
    assert make_cell(TABLE, CLEARCLIP, "voc20", [record], "clearclip").measured is None
    assert [row.label for row in own_rows(TABLE, [record], "clearclip")] == ["ClearCLIP"]


@pytest.mark.parametrize(
    "changes", [dict(model__prob_thd=0.3), dict(weights__origin="file"), dict(dataset__count=3), dict(other__x=1)]
)
def test_own_rows_are_of_complete_runs_by_the_protocol(changes):
    records = [make_record("voc20", method__label="Neighbours", method__source="01", **changes)]
    assert own_rows(TABLE, records, "clearclip") == []

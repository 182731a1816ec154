"""Which sheets a workbook has, and in which order."""

from __future__ import annotations

from recorded_runs import find_row, make_record

from clearclip.results.protocols import protocol_names
from clearclip.results.table_definitions import tables
from clearclip.results.workbook_sheets import make_sheets


def titles_of(*records):
    return [sheet.title for sheet in make_sheets(records, [])]


def test_every_table_has_a_sheet():
    assert titles_of() == ["runs", *(table.title for table in tables().values())]


def test_tables_with_measured_numbers_come_first():
    titles = titles_of(make_record("ade20k"), make_record("voc21"))
    runs = titles.index("runs")
    assert titles[:runs] == ["benchmarks", "table 2", "background", "ablation", "family"]
    assert titles[runs : runs + 3] == ["runs", "IoU ADE20K", "IoU VOC21"]
    assert [sheet.has_measured for sheet in make_sheets([make_record("ade20k")], [])][:2] == [True, True]


def test_other_protocols_have_sheets_where_runs_were_made_by_them():
    titles = titles_of(make_record("voc21", 500, find_row("family", "NACLIP"), "naclip"))
    assert titles[0] == "family, naclip"
    assert not {f"family, {name}" for name in protocol_names() if name != "naclip"} & {*titles}


def test_the_miniature_has_sheets_where_it_was_run():
    assert not any(title.startswith("miniature") for title in titles_of())
    titles = titles_of(make_record("miniature", row=find_row("2", "CLIP", miniature=True)))
    assert titles[:3] == ["miniature, table 2", "miniature, ablation", "miniature, family"]

"""Tables as data: their rows are the methods that they name, and rows and columns are what they are called."""

from __future__ import annotations

from itertools import product

import pytest
from recorded_runs import make_record

from clearclip import LastBlock, UserError
from clearclip.commands.eval_all_parser import eval_all_parser
from clearclip.methods import ATTENTIONS, GEM, build_method
from clearclip.results import table_definitions
from clearclip.results.data_files import read_json_file
from clearclip.results.protocols import find_protocol
from clearclip.results.table_definitions import (
    FAMILY,
    every_table,
    find_table,
    published_labels,
    tables,
)
from clearclip.results.table_text import to_markdown
from clearclip.results.workbook_sheets import make_sheets

WEIGHTS = ("CLIP", "BLIP", "OpenCLIP", "MetaCLIP")
WITH_MINIATURE = [find_table(name, bundled=True) for name in ("benchmarks", "2", "background", "ablation", "family")]
EVERY_TABLE = [*tables().values(), *WITH_MINIATURE]


def test_rows_are_the_methods_that_they_name():
    """From the paper, section 3: attention, residual and FFN of each row."""
    clear = LastBlock("qq", residual=False, ffn=False)
    whole = LastBlock("qk", residual=True, ffn=True)
    expected = {(name, added): clear if added == "yes" else whole for name in WEIGHTS for added in ("no", "yes")}
    for name, attention in (("MaskCLIP", "identity"), ("SCLIP", "qq+kk")):
        expected[name, "no"] = LastBlock(attention, residual=True, ffn=True)
        expected[name, "yes"] = LastBlock(attention, residual=False, ffn=False)
    expected["GEM", "no"], expected["GEM", "yes"] = GEM(residual=True), GEM(residual=False)
    rows = find_table("2").rows
    assert len(rows) == 28
    for row in rows:
        assert build_method(row.method) == expected[row.name, row.clearclip]
        assert row.clip_type == (row.name if row.name in WEIGHTS else "CLIP")


@pytest.mark.parametrize("table", EVERY_TABLE, ids=lambda table: table.title)
def test_rows_are_known_by_the_label_of_the_method_that_they_compute(table):
    for row in table.rows:
        assert build_method(row.method).label == row.label
    assert len({(row.vit, row.clip_type, row.name, row.clearclip) for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize("table", EVERY_TABLE, ids=lambda table: table.title)
def test_every_cell_has_a_protocol(table):
    for dataset in table.datasets:
        assert find_protocol("clearclip", dataset).dataset == dataset
    assert set(table.shown_sizes) <= {row.vit for row in table.rows}
    assert set(table.numbers_of) <= set(tables())


def test_the_ablation_has_every_combination():
    every = list(product(ATTENTIONS, (True, False), (True, False)))
    for table, sizes in ((find_table("ablation"), 2), (find_table("ablation", bundled=True), 1)):
        methods = [build_method(row.method) for row in table.rows]
        assert sorted((method.attention, method.residual, method.ffn) for method in methods) == sorted(every * sizes)


def test_the_first_table_is_taken_where_none_is_named():
    assert find_table().name == "benchmarks"
    assert len(find_table().datasets) == 8
    assert find_table(bundled=True).name == "2"


def test_some_tables_show_one_size_unless_others_are_named():
    assert {row.vit for row in find_table("family").select_rows()} == {"ViT-B/16"}
    assert {row.vit for row in find_table("family").select_rows(sizes=["ViT-L/14"])} == {"ViT-L/14"}
    assert {row.vit for row in find_table("2").select_rows()} == {"ViT-B/16", "ViT-L/14"}


@pytest.mark.parametrize(
    ("names", "systems"),
    [
        (["MaskCLIP"], ["MaskCLIP"]),
        (["MaskCLIP + ClearCLIP"], ["MaskCLIP + ClearCLIP"]),
        (["CLIP"], ["CLIP"]),
        (["SCLIP + ClearCLIP", "CLIP"], ["CLIP", "SCLIP + ClearCLIP"]),
    ],
)
def test_rows_are_what_they_say(names, systems):
    """The plain row alone, or the one with ClearCLIP alone; in the order of the table."""
    rows = find_table("2").select_rows(names, ["ViT-B/16"])
    assert [row.system for row in rows] == systems


@pytest.mark.parametrize("table", tables().values(), ids=lambda table: table.name)
def test_every_row_can_be_chosen_alone(table):
    for row in table.rows:
        chosen = table.select_rows([row.system], [row.vit])
        assert row in chosen
        assert {(other.system, other.vit) for other in chosen} == {(row.system, row.vit)}


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (lambda: find_table("2").select_rows(["DeepLab"]), "unknown row 'DeepLab'.*MaskCLIP"),
        (lambda: find_table("2").select_rows(["MaskClip"]), "unknown row 'MaskClip'.*did you mean MaskCLIP?"),
        (lambda: find_table("2").select_rows(sizes=["ViT-H/14"]), "unknown vit.*ViT-L/14"),
        (lambda: find_table("2", bundled=True).select_rows(["BLIP"]), "unknown row 'BLIP'"),
        (lambda: find_table("2").with_datasets(["voc21"]), "unknown dataset 'voc21'.*voc20"),
        (lambda: find_table("backbones", bundled=True), "backbones has no row of the miniature's"),
    ],
)
def test_unknown_names_list_the_valid_ones(select, message):
    with pytest.raises(UserError, match=message):
        select()


def test_the_miniatures_rows_have_its_weights():
    for table in WITH_MINIATURE:
        assert table.datasets == ("miniature",)
        assert {(row.clip_type, row.vit) for row in table.rows} == {("Miniature", "Miniature/8")}
    assert not find_table("2", bundled=True).shows_mean


def test_the_family_and_the_labels_of_all_rows():
    assert FAMILY[0] == "CLIP" and {"ClearCLIP", "NACLIP", "ProxyCLIP"} < set(FAMILY)
    assert {"CLIP", "qq, residual, FFN", "NACLIP + RCS + SFR"} < published_labels()


@pytest.fixture
def one_more_table(monkeypatch):
    """``tables.json`` with one more entry."""
    caches = (tables, every_table, published_labels)
    entries = read_json_file("tables.json")
    entries.append({**entries[1], "name": "mine", "title": "my table", "note": "what it shows", "datasets": ["voc20"]})
    files = {"tables.json": entries, "bundled_tables.json": read_json_file("bundled_tables.json")}
    monkeypatch.setattr(table_definitions, "read_json_file", files.__getitem__)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_a_new_table_is_one_entry(one_more_table):
    """The command line, the workbook, the texts and the records' protocols have it, with its measured number."""
    record = make_record("voc20", 700)
    assert "mine: what it shows" in eval_all_parser().format_help()
    (sheet,) = [sheet for sheet in make_sheets([record], []) if sheet.title == "my table"]
    assert sheet.has_measured
    table = find_table("mine")
    assert "| ViT-B/16 | CLIP | yes | 35.0 (80.9) |" in to_markdown(table, [record], "clearclip")
    assert find_table("mine", bundled=True).datasets == ("miniature",)

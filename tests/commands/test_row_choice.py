"""Rows are what they say: published ones by their names, the user's own methods, and methods with options as JSON."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from clearclip import METHODS, Method, UserError
from clearclip.commands.row_choice import choose_rows
from clearclip.methods import build_method
from clearclip.results.table_definitions import find_table

TABLE, FAMILY, MINIATURE = find_table("2"), find_table("family"), find_table("2", bundled=True)
SIZES = ["ViT-B/16"]


@pytest.fixture
def own_method():
    """A method of the user's own, registered for one test."""

    @dataclass(frozen=True)
    class OwnRow(Method):
        """Leaves the tokens as they are."""

        def __call__(self, blocks, x, context):
            return x

    METHODS.register_module()(OwnRow)
    yield "OwnRow"
    del METHODS["OwnRow"]


@pytest.mark.parametrize(
    ("names", "systems"),
    [
        (["MaskCLIP"], ["MaskCLIP"]),
        (["MaskCLIP + ClearCLIP"], ["MaskCLIP + ClearCLIP"]),
        (['{"type": "MaskCLIP"}'], ["MaskCLIP"]),
        (["GEM", "MaskCLIP"], ["MaskCLIP", "GEM"]),
        (["ClearCLIP", "CLIP"], ["CLIP", "CLIP + ClearCLIP"]),
    ],
)
def test_published_rows(names, systems):
    assert [row.system for row in choose_rows(TABLE, names, SIZES)] == systems


def test_all_rows_where_none_is_named():
    assert choose_rows(TABLE, None, None) == list(TABLE.rows)
    assert {row.vit for row in choose_rows(FAMILY, None, None)} == {"ViT-B/16"}


def test_options_as_json():
    name = '{"type": "NACLIP", "sigma": 2}'
    (row,) = choose_rows(FAMILY, [name], SIZES)
    assert (row.name, row.label, row.is_own) == ("NACLIP (sigma=2)", "NACLIP (sigma=2)", True)
    assert build_method(row.method) == build_method(name)
    published, own = choose_rows(FAMILY, [name, "NACLIP"], SIZES)
    assert (published.system, own.label) == ("NACLIP", "NACLIP (sigma=2)")


def test_methods_of_the_users_own(own_method):
    (row,) = choose_rows(TABLE, [own_method], SIZES)
    assert (row.name, row.clip_type, row.vit, row.is_own) == ("OwnRow", "CLIP", "ViT-B/16", True)
    assert [row.vit for row in choose_rows(TABLE, [own_method], None)] == ["ViT-B/16", "ViT-L/14"]
    (row,) = choose_rows(MINIATURE, [own_method], None)
    assert (row.clip_type, row.vit) == ("Miniature", "Miniature/8")
    rows = choose_rows(TABLE, [own_method, "MaskCLIP"], SIZES)
    assert [row.system for row in rows] == ["MaskCLIP", "OwnRow"]


@pytest.mark.parametrize(
    ("table", "names", "sizes", "message"),
    [
        (TABLE, ["DeepLab"], None, "unknown row 'DeepLab'"),
        (TABLE, ["NACLIP"], None, "unknown row 'NACLIP'"),
        (TABLE, ['{"type": "NACLIP"'], None, "is not valid JSON"),
        (TABLE, ['{"type": "Nothing"}'], None, "unknown method 'Nothing'"),
        (TABLE, ["CLIP"], ["ViT-H/14"], "unknown vit 'ViT-H/14'"),
        (find_table("backbones"), ["webli"], ["ViT-B-32"], "unknown row 'webli'"),
        (find_table("backbones"), ['{"type": "NACLIP"}'], None, "backbones has no such row"),
    ],
)
def test_names_that_are_none_are_told(table, names, sizes, message):
    with pytest.raises(UserError, match=message):
        choose_rows(table, names, sizes)

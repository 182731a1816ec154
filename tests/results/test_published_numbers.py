"""The published numbers are those that were printed, and stand beside runs of their own protocol only."""

from __future__ import annotations

from statistics import fmean

from recorded_runs import find_row

from clearclip.results.protocols import protocols
from clearclip.results.published_numbers import find_published, find_reruns, published_numbers
from clearclip.results.table_definitions import find_table, tables

TABLE = find_table("2")
ROWS = {(row.vit, row.name, row.clearclip): row for row in TABLE.rows}
PAPER = {
    ("ViT-B/16", "CLIP", "no"): (41.8, 9.2, 4.4, 5.5, 2.1, 12.6),
    ("ViT-B/16", "CLIP", "yes"): (80.9, 35.9, 23.9, 30.0, 16.7, 37.5),
    ("ViT-L/14", "GEM", "yes"): (79.7, 29.9, 19.4, 25.9, 14.2, 33.8),
    ("ViT-B/16", "MaskCLIP", "yes"): (61.4, 28.3, 18.4, 24.7, 13.6, 29.5),
}
COLUMNS = (*TABLE.datasets, "average")


def test_published_numbers_are_the_papers():
    assert len(ROWS) == 28
    for key, values in PAPER.items():
        numbers = [find_published(TABLE, ROWS[key], dataset, "clearclip") for dataset in COLUMNS]
        assert tuple(number.miou for number in numbers) == values
    cells = [find_published(TABLE, row, dataset, "clearclip") for row in TABLE.rows for dataset in COLUMNS]
    assert len(cells) == 168
    assert None not in cells


def test_every_number_has_a_source_and_is_somebodys():
    for (table, _, _, _, _), numbers in published_numbers().items():
        for number in numbers:
            assert number.source
            assert bool(number.rerun_by) == (table == "rerun")
    assert {key[0] for key in published_numbers()} <= {"rerun", *tables()}


def test_no_number_is_listed_twice():
    for numbers in published_numbers().values():
        assert len({(str(number.settings), number.rerun_by) for number in numbers}) == len(numbers)


def test_averages_of_the_paper():
    """Every printed average is the mean of its row to rounding, but for the two that are known not to be."""
    wrong = set()
    for row in TABLE.rows:
        values = [find_published(TABLE, row, dataset, "clearclip").miou for dataset in TABLE.datasets]
        if abs(fmean(values) - find_published(TABLE, row, "average", "clearclip").miou) > 0.06:
            wrong.add((row.vit, row.system))
    assert {("ViT-B/16", "MaskCLIP + ClearCLIP"), ("ViT-B/16", "SCLIP + ClearCLIP")} <= wrong
    assert len(wrong) <= 3


def test_reruns_are_by_those_who_measured_them():
    row = find_row("benchmarks", "CLIP + ClearCLIP")
    for dataset in find_table("benchmarks").datasets:
        assert "CCAR-CLIP" in find_reruns(row, dataset, "clearclip")
    assert find_reruns(row, "voc20", "clearclip")["CCAR-CLIP"].miou == 80.93
    proxyclip = find_reruns(find_row("family", "ProxyCLIP"), "voc21", "proxyclip")
    assert {name: number.miou for name, number in proxyclip.items()} == {"ovss-vocab-audit": 61.2}
    assert all(number.is_second_hand for number in proxyclip.values())
    for dataset, miou in (("voc21", 64.6), ("coco_object", 37.7)):
        assert find_reruns(find_row("family", "SC-CLIP"), dataset, "scclip")["ovss-vocab-audit"].miou == miou


def test_a_number_with_settings_of_its_own_stands_in_cells_with_the_same_settings():
    """Vanilla CLIP on VOC21 was published with a threshold of its own, which the family's table does not have."""
    background, family = find_table("background"), find_table("family")
    assert find_published(background, find_row("background", "CLIP"), "voc21", "clearclip").miou == 16.2
    assert find_published(family, find_row("family", "CLIP"), "voc21", "clearclip") is None
    assert find_published(family, find_row("family", "CLIP"), "context60", "clearclip").miou == 7.7


def test_numbers_stand_in_further_tables_under_other_names():
    family = find_table("family")
    assert find_published(family, find_row("family", "ClearCLIP"), "voc21", "clearclip").miou == 51.8
    assert find_published(family, find_row("family", "ClearCLIP"), "voc21", "naclip") is None
    assert find_published(family, find_row("family", "GEM"), "voc20", "clearclip").miou == 79.9
    assert find_published(family, find_row("family", "NACLIP"), "voc21", "resclip").miou == 58.9


def test_every_number_has_a_cell():
    """A number whose protocol, row or dataset is misspelled would be shown nowhere."""
    shown = set()
    for table in tables().values():
        for row in table.rows:
            for system in (row.system, *row.published_as):
                for name in (*table.numbers_of, "rerun"):
                    for dataset in (*table.datasets, "average"):
                        shown |= {(name, protocol, row.vit, system, dataset) for protocol, _ in protocols()}
    assert published_numbers().keys() <= shown

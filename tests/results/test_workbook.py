"""The workbook: which sheets are ours, what opens first, and what happens where it cannot be written."""

from __future__ import annotations

import zipfile
from pathlib import Path

import openpyxl
import pytest
from recorded_runs import append_run, evaluation

from clearclip.results import workbook as workbook_module
from clearclip.results.records import append, read_records
from clearclip.results.workbook import is_ours, update_workbook


def named_run(name: str, **options) -> dict:
    """What is recorded of a run on a dataset of the user's own."""
    run = evaluation(**options)
    run.facts["dataset"]["name"] = name
    return run.record


@pytest.mark.parametrize("fault", ["damaged", "read-only", "left over"])
def test_a_workbook_in_trouble_costs_no_result(tmp_path, fault):
    path = tmp_path / "results.xlsx"
    append_run(path, hits=100)
    update_workbook(path)
    append_run(path, hits=200)
    if fault == "damaged":
        path.write_bytes(b"no workbook")
        (tmp_path / "results.before.xlsx").write_bytes(b"an earlier one")
        with pytest.warns(UserWarning, match=r"kept as .*results\.before2\.xlsx"):
            assert update_workbook(path)
        assert (tmp_path / "results.before.xlsx").read_bytes() == b"an earlier one"
        assert (tmp_path / "results.before2.xlsx").read_bytes() == b"no workbook"
    elif fault == "read-only":
        path.chmod(0o444)
        with pytest.warns(UserWarning, match="read-only.*records are safe"):
            assert not update_workbook(path)
        assert runs_of(path) == [5]
        path.chmod(0o644)
    else:  # by a process that was killed between records and workbook
        (tmp_path / ".results-abc.xlsx").write_bytes(b"half")
    assert update_workbook(path)
    assert [record.mIoU for record in read_records(path)[0]] == pytest.approx([5, 10])
    assert runs_of(path) == [5, 10]
    assert not list(tmp_path.glob(".results-*.xlsx"))


def runs_of(path: Path, sheet: str = "runs") -> list[float]:
    """The numbers in the list of runs."""
    header, *lines = list(openpyxl.load_workbook(path)[sheet].values)[1:]
    return [line[header.index("mIoU")] for line in lines if isinstance(line[header.index("mIoU")], int | float)]


def test_no_other_file_is_left(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path)
    update_workbook(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.jsonl", "results.xlsx"]


def test_the_users_own_sheets_stay(tmp_path):
    """Also where they have a name of ours, are empty, or are copies of ours under another name."""
    path = tmp_path / "results.xlsx"
    book = openpyxl.Workbook()
    book.active.title, book.active["A1"] = "runs", "mine"
    book.create_sheet("notes")["B2"] = "=SUM(1, 2)"
    book.create_sheet("empty")
    book.save(path)
    append_run(path, hits=100)
    assert update_workbook(path)
    book = openpyxl.load_workbook(path)
    book.copy_worksheet(book["table 2"]).title = "my table"
    book["IoU VOC20"].title = "renamed"
    book.save(path)
    append_run(path, hits=200)
    assert update_workbook(path)
    book = openpyxl.load_workbook(path)
    assert (book["runs"]["A1"].value, book["notes"]["B2"].value) == ("mine", "=SUM(1, 2)")
    assert {"empty", "my table", "renamed", "IoU VOC20"} <= set(book.sheetnames)
    assert runs_of(path, "runs1") == [5, 10]
    assert len(book.sheetnames) == len(set(book.sheetnames))
    assert book.sheetnames.index("runs1") < book.sheetnames.index("runs"), "the user's own come last"


@pytest.mark.parametrize(
    "name", ["x|notes", "alpha|beta", "notes", "NOTES", "=1+1", "[/b]", "\ud800\x07", "'", "a" * 99]
)
def test_no_name_of_a_dataset_touches_a_sheet_of_the_users(tmp_path, name):
    path = tmp_path / "results.xlsx"
    book = openpyxl.Workbook()
    for title in ("notes", "beta", "IoU notes"):
        book.create_sheet(title)["A1"] = f"my {title}"
    book.save(path)
    for _ in range(2):
        append([named_run(name)], path)
        assert update_workbook(path)
    book = openpyxl.load_workbook(path)
    for title in ("notes", "beta", "IoU notes"):
        assert book[title]["A1"].value == f"my {title}"
    assert sum(is_ours(sheet) for sheet in book.worksheets) == len(book.sheetnames) - 4
    assert no_formulas(path)


def no_formulas(path: Path) -> bool:
    """Whether no cell of a workbook is a formula, as its XML has it."""
    with zipfile.ZipFile(path) as archive:
        sheets = [archive.read(name) for name in archive.namelist() if name.startswith("xl/worksheets/")]
    return not any(b"<f>" in sheet or b"<f " in sheet for sheet in sheets)


def test_a_sheet_of_the_users_that_has_the_name_of_a_deleted_one_of_ours(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path)
    update_workbook(path)
    book = openpyxl.load_workbook(path)
    book.remove(book["runs"])
    book.create_sheet("runs")["A1"] = "my notes on the runs"
    book.save(path)
    append_run(path)
    assert update_workbook(path)
    assert openpyxl.load_workbook(path)["runs"]["A1"].value == "my notes on the runs"


def test_it_opens_on_the_table(tmp_path):
    path = tmp_path / "results.xlsx"
    append([named_run("my photos")], path)
    update_workbook(path)
    assert openpyxl.load_workbook(path).active.title == "runs", "no table shows this run"
    append_run(path, "voc20")
    update_workbook(path)
    assert openpyxl.load_workbook(path).active.title == "benchmarks"
    update_workbook(path, opens_on="table 2")
    book = openpyxl.load_workbook(path)
    assert book.active.title == "table 2"
    assert [sheet.title for sheet in book.worksheets if sheet.sheet_view.tabSelected] == ["table 2"]


@pytest.mark.parametrize("changed", ["records", "data files", "nothing"])
def test_it_is_made_again_where_what_it_shows_has_changed(tmp_path, monkeypatch, changed):
    path = tmp_path / "results.xlsx"
    append_run(path)
    update_workbook(path)
    before = path.read_bytes()
    if changed == "records":
        append_run(path)
    if changed == "data files":
        monkeypatch.setattr(workbook_module, "data_digest", lambda: "a corrected published.csv")
    assert update_workbook(path)
    assert (path.read_bytes() == before) == (changed == "nothing")


def test_it_is_made_again_when_asked_for(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path)
    update_workbook(path)
    book = openpyxl.load_workbook(path)
    book["runs"]["A1"] = "changed by hand"
    book.save(path)
    assert update_workbook(path, force=True)
    assert openpyxl.load_workbook(path)["runs"]["A1"].value.startswith("All runs")

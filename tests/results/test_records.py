"""The file of records: a line in trouble costs only itself, and two processes may write at once."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import random
import string
from multiprocessing.synchronize import Barrier
from pathlib import Path

import openpyxl
import pytest
from recorded_runs import append_run, evaluation

from clearclip import UserError
from clearclip.results.explanation import reasons_against_tables
from clearclip.results.record import EARLIER_VERSION, MAX_DEPTH, NOT_NOTED, Record, RecordError, parse_record
from clearclip.results.records import (
    CHANGED_BY_HAND,
    append,
    check_results_path,
    command_id,
    find_record,
    read_records,
    records_path,
)
from clearclip.results.workbook import update_workbook
from clearclip.utils.fingerprint import digest


@pytest.fixture(scope="module")
def good_line(tmp_path_factory) -> dict:
    """A line as it is written."""
    path = tmp_path_factory.mktemp("good") / "results.xlsx"
    append_run(path, hits=100)
    return json.loads(records_path(path).read_text())


def signed(data: dict) -> bytes:
    """A line with a checksum that fits, so that nothing but its fields is at fault."""
    rest = {name: value for name, value in data.items() if name != "checksum"}
    return json.dumps({**rest, "checksum": digest(rest)}).encode()


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


#: What is changed in a good line → what is said of it.
WRONG_FIELDS = {
    "no dataset": (dict(dataset=None), "dataset is no text"),
    "a number as method": (dict(method=3), "method is no text"),
    "a text as mIoU": (dict(mIoU="80"), "mIoU is no number"),
    "mIoU above 100": (dict(mIoU=101), "mIoU is no percentage"),
    "negative mIoU": (dict(mIoU=-1), "mIoU is no percentage"),
    "true as mIoU": (dict(mIoU=True), "mIoU is no number"),
    "NaN as mIoU": (dict(mIoU=float("nan")), "mIoU is no number"),
    "infinite mIoU": (dict(mIoU=float("inf")), "mIoU is no number"),
    "a list as mIoU": (dict(mIoU=[1]), "mIoU is no number"),
    "no time": (dict(time="yesterday"), "time is no time"),
    "time without zone": (dict(time="2026-01-01T00:00:00"), "time has no time zone"),
    "time as a number": (dict(time=5), "time is no time"),
    "half an image": (dict(images=1.5), "images is no whole number"),
    "negative images": (dict(images=-1), "images is no whole number"),
    "too many images": (dict(images=10**30), "images is no whole number"),
    "skipped is a text": (dict(skipped="0"), "skipped is no whole number"),
    "seconds is null": (dict(seconds=None), "seconds is no number"),
    "classes is a text": (dict(classes="abc"), "classes is no list"),
    "a class is null": (dict(classes=["a", None]), "classes has an entry that is no text"),
    "a class is a list": (dict(classes=["a", ["b"]]), "classes has an entry that is no text"),
    "too few IoU": (dict(iou=[1.0]), "has 2 classes, but iou of 1"),
    "an IoU is a text": (dict(iou=["1", None]), "iou has an entry that is no number"),
    "an IoU is too large": (dict(iou=[1e400, None]), "number"),
    "too few recalls": (dict(recall=[1.0]), "has 2 classes, but recall of 1"),
    "a precision is a text": (dict(precision=["1", None]), "precision has an entry that is no number"),
    "facts is a list": (dict(facts=[1, 2]), "facts are no object"),
    "facts is null": (dict(facts=None), "facts are no object"),
    "fingerprint is null": (dict(fingerprint=None), "fingerprint is no text"),
    "reasons are a text": (dict(not_published_because="x"), "not_published_because is no list"),
    "version is a list": (dict(version=[]), "version is no text"),
    "another dataset than its facts": (dict(dataset="ade20k"), "dataset and its facts disagree"),
    "another method than its facts": (dict(method="GEM"), "method and its facts disagree"),
    "a huge integer": (dict(extra=10**400), "a number that is too large"),
    "nested facts": (dict(extra=nested(MAX_DEPTH + 5)), "nested more than"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_FIELDS.values(), ids=[*WRONG_FIELDS])
def test_a_field_that_does_not_fit_is_named(tmp_path, good_line, changes, message):
    path = tmp_path / "results.xlsx"
    records_path(path).write_bytes(signed({**good_line, **changes}) + b"\n" + signed(good_line) + b"\n")
    records, remarks = read_records(path)
    assert [record.mIoU for record in records] == [5]
    (remark,) = remarks
    assert remark.startswith("results.jsonl, line 1: damaged (") and message in remark


#: Parts of facts → what stands in their place.
WRONG_FACTS = dict.fromkeys(("dataset", "input", "model", "other", "weights", "method", "environment"))


@pytest.mark.parametrize("part", WRONG_FACTS)
@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_a_part_of_the_facts_that_is_no_object(tmp_path, good_line, part, value):
    path = tmp_path / "results.xlsx"
    records_path(path).write_bytes(signed({**good_line, "facts": {**good_line["facts"], part: value}}))
    records, remarks = read_records(path)
    assert records == []
    assert f"facts have a part {part} that is no object" in remarks[0]


#: Lines that are no JSON object.
NO_RECORDS = {
    "deep brackets": b"[" * 100_000,
    "deep braces": b'{"a":' * 100_000,
    "cut short": b'{"time": "2026-01-0',
    "text": b"{no json",
    "latin-1": "{'é'}".encode("latin-1"),
    "null": b"null",
    "a list": b'["a", "list"]',
    "a number": b"5",
    "a text": b'"text"',
    "nothing in it": b"{}",
    "an integer of 10,000 digits": b'{"mIoU": ' + b"9" * 10_000 + b"}",
    "zeros": b"\0" * 100,
    "an image": b"\x89PNG\r\x1a",
    "something twice": b'{"dataset": "voc20", "dataset": "voc21", "method": "GEM", "mIoU": 1}',
}


@pytest.mark.parametrize("line", NO_RECORDS.values(), ids=[*NO_RECORDS])
def test_a_line_that_is_no_record_costs_only_itself(tmp_path, good_line, line):
    path = tmp_path / "results.xlsx"
    records_path(path).write_bytes(line + b"\n" + signed(good_line) + b"\n")
    records, remarks = read_records(path)
    assert [record.mIoU for record in records] == [5]
    assert len(remarks) == 1 and "line 1: damaged" in remarks[0]
    assert append_run(path, hits=200).mIoU == 10
    assert [record.mIoU for record in read_records(path)[0]] == [5, 10]


def test_a_workbook_is_made_of_what_is_whole(tmp_path, good_line):
    """Every kind of damage in one file."""
    path = tmp_path / "results.xlsx"
    wrong_fields = [signed({**good_line, **changes}) for changes, _ in WRONG_FIELDS.values()]
    wrong_facts = [signed({**good_line, "facts": {**good_line["facts"], part: None}}) for part in WRONG_FACTS]
    damaged = [*NO_RECORDS.values(), *wrong_fields, *wrong_facts]
    records_path(path).write_bytes(b"\n".join([*damaged, signed(good_line)]))
    records, remarks = read_records(path)
    assert (len(records), len(remarks)) == (1, len(damaged))
    assert update_workbook(path)
    lines = [str(row[0]) for row in openpyxl.load_workbook(path)["runs"].values]
    assert sum("results.jsonl, line" in line for line in lines) == len(damaged)


def test_random_changes_of_a_line_never_end_a_command(tmp_path, good_line):
    """Characters replaced, taken away and repeated: read, or named and left out."""
    generator = random.Random(0)
    path = tmp_path / "results.xlsx"
    text = json.dumps(good_line)
    lines = []
    for _ in range(300):
        letters = list(text)
        for _ in range(generator.randint(1, 4)):
            place = generator.randrange(len(letters))
            letters[place] = generator.choice(["", letters[place] * 2, *string.printable[:90], "null", "\ud800"])
        lines.append("".join(letters).replace("\n", ""))
    records_path(path).write_text("\n".join(lines), errors="surrogatepass")
    records, remarks = read_records(path)
    assert len(records) + len(remarks) >= 300
    # A line may say the same in other words, such as 5.00 for 5.0.
    (original,) = [parse_record(good_line)]
    assert all(record.remark or record.to_json() == original.to_json() for record in records)


def test_random_values_of_fields_never_end_a_command(good_line):
    values = [None, True, 0, -1, 1.5, 1e308, "", "x", "\ud800", [], [[]], {}, {"name": 1}, nested(200), 2**70]
    for name in good_line:
        for value in values:
            try:
                record = parse_record({**good_line, name: value})
            except RecordError as error:
                assert str(error)
            else:
                assert isinstance(record, Record)


def test_lines_in_trouble_are_named_and_what_is_whole_is_listed(tmp_path, good_line):
    path = tmp_path / "results.xlsx"
    changed = {**good_line, "mIoU": 99.0}
    old = {"time": "2024-07-01T00:00:00+00:00", "dataset": "voc20", "method": "ClearCLIP", "mIoU": 80.9}
    older = {**old, "settings": {"clip_type": "CLIP"}, "facts": {}}
    lines = [json.dumps(line).encode() for line in (good_line, changed, old, older)]
    records_path(path).write_bytes(b"\xef\xbb\xbf" + b"\n".join([*lines, lines[0], lines[0][:70]]))
    append_run(path, hits=300)
    records, remarks = read_records(path)
    assert [record.mIoU for record in records] == [5, 99, 80.9, 80.9, 15]
    assert [record.remark for record in records] == ["", CHANGED_BY_HAND, EARLIER_VERSION, EARLIER_VERSION, ""]
    assert [record.line for record in records] == [1, 2, 3, 4, 7]
    assert [remark.partition(": ")[0] for remark in remarks] == [f"results.jsonl, line {n}" for n in (2, 3, 4, 5, 6)]
    assert "repeats line" in remarks[3] or "damaged" in remarks[3]
    assert "damaged" in remarks[4]


def test_a_line_that_comes_twice_counts_once(tmp_path, good_line):
    path = tmp_path / "results.xlsx"
    records_path(path).write_bytes(b"\n".join([signed(good_line)] * 3))
    records, remarks = read_records(path)
    assert len(records) == 1
    assert remarks == [f"results.jsonl, line {number}: repeats line 1, left out" for number in (2, 3)]


def test_records_of_the_last_version_are_listed(tmp_path):
    """Written before there was a schema: the same fields but for id, schema and the reasons."""
    path = tmp_path / "results.xlsx"
    data = evaluation(hits=400).record | {"version": "0.1", "commit": "f8d210a"}
    del data["not_published_because"]
    records_path(path).write_bytes(signed(json.loads(json.dumps(data))))
    (record,), remarks = read_records(path)
    assert (record.mIoU, record.schema, record.remark) == (20, 1, "")
    assert remarks == []
    assert record.not_published_because is None
    assert reasons_against_tables(record) == [NOT_NOTED]


@pytest.mark.parametrize("reasons", [[], ["own code was imported: x.py"]])
def test_reasons_are_read_by_their_earlier_key(tmp_path, reasons):
    path = tmp_path / "results.xlsx"
    data = evaluation(hits=400).record | {"version": "0.2", "commit": "f8d210a", "schema": 2}
    del data["not_published_because"]
    data["not_in_table_because"] = reasons
    records_path(path).write_bytes(signed(json.loads(json.dumps(data))))
    (record,), remarks = read_records(path)
    assert (record.not_published_because, record.fills_cells, remarks) == (reasons, not reasons, [])
    assert "not_in_table_because" not in record.to_json()


def test_a_fault_names_the_key_that_the_record_has(tmp_path):
    data = evaluation(hits=400).record
    del data["not_published_because"]
    with pytest.raises(RecordError, match=r"^not_in_table_because is no list"):
        parse_record({**data, "not_in_table_because": "x"})


def test_all_pixels_ignored_is_a_result(tmp_path):
    path = tmp_path / "results.xlsx"
    empty = evaluation()
    empty.scores.confusion[:] = 0
    (record,) = append([empty.record], path)
    assert (record.mIoU, record.aAcc, record.iou) == (None, None, [None, None])
    assert read_records(path) == ([record], [])


def test_names_may_be_any_text(tmp_path):
    path = tmp_path / "results.xlsx"
    odd = evaluation()
    odd.classes = ["line\u2028separator", "\ud800\x07[/b]=1+1"]
    odd.facts["dataset"]["name"] = "=1+1|x\ud800"
    append([odd.record], path)
    (record,), remarks = read_records(path)
    assert (record.classes, record.dataset, remarks) == (odd.classes, "=1+1|x\ud800", [])


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    path = tmp_path / "results.xlsx"
    odd = copy.deepcopy(evaluation())
    odd.facts["other"]["x"] = nested(MAX_DEPTH + 5)
    with pytest.raises(UserError, match="cannot be recorded: it is nested more than"):
        append([evaluation().record, odd.record], path)
    assert read_records(path) == ([], [])


def test_infinite_facts_are_kept_as_texts(tmp_path):
    path = tmp_path / "results.xlsx"
    odd = evaluation()
    odd.facts["other"]["clip"] = [float("inf"), float("nan")]
    append([odd.record], path)
    (record,), remarks = read_records(path)
    assert (record.facts["other"]["clip"], remarks) == (["Infinity", "NaN"], [])


def _record_some(path: Path, number: int, both: Barrier) -> None:
    both.wait()
    for index in range(3):
        append_run(path, hits=100 * number + index)
        update_workbook(path)


def test_two_evaluations_at_once_both_arrive(tmp_path):
    path = tmp_path / "results.xlsx"
    context = multiprocessing.get_context("spawn")
    both = context.Barrier(2)
    process = context.Process(target=_record_some, args=(path, 1, both))
    process.start()
    _record_some(path, 2, both)
    process.join()
    assert process.exitcode == 0
    assert len(read_records(path)[0]) == 6
    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.jsonl", "results.xlsx"], "no lock stays"


def test_ids_tell_the_command_and_the_record(tmp_path):
    path = tmp_path / "results.xlsx"
    ids = [append_run(path).id for _ in range(3)]
    assert len(set(ids)) == 3
    assert {identifier.partition("-")[0] for identifier in ids} == {command_id()}


@pytest.mark.parametrize("name", ["results.xlsx", "results.jsonl"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "link to itself"])
def test_no_place_for_results_is_said_before_the_run(tmp_path, name, kind):
    place = tmp_path / name
    {"folder": place.mkdir, "fifo": lambda: os.mkfifo(place), "link to itself": lambda: place.symlink_to(place)}[kind]()
    with pytest.raises(UserError, match=r"--results"):
        append([evaluation().record], tmp_path / "results.xlsx")


@pytest.mark.parametrize(
    ("results", "message"),
    [("results.csv", "must end in .xlsx"), ("x" * 300 + ".xlsx", "cannot be kept"), ("file/r.xlsx", "no folder")],
)
def test_results_paths_are_checked(tmp_path, results, message):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        check_results_path(tmp_path / results)


def test_a_run_is_found_by_its_line_or_its_fingerprint(tmp_path):
    path = tmp_path / "results.xlsx"
    with pytest.raises(UserError, match="has no records to explain"):
        find_record(path, "last")
    first, second = append_run(path, hits=100), append_run(path, "ade20k", hits=200)
    assert find_record(path, "1").mIoU == 5
    assert find_record(path, second.fingerprint[:8]).mIoU == 10
    assert find_record(path, first.fingerprint).mIoU == 5
    assert find_record(path, "last").mIoU == 10
    with pytest.raises(UserError, match="no run 7; give the number of its line \\(1, 2\\)"):
        find_record(path, "7")

"""``results.xlsx``, made from the records: the runs, a sheet per table, and the IoU of each class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import openpyxl
from filelock import FileLock
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.packaging.custom import StringProperty
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.workbook import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from clearclip.results.published import TABLES, protocol_names, table_rows, title
from clearclip.results.records import check_results_path, read_records, records_path
from clearclip.results.tables import SECOND_HAND, STATED, fill_row, headings, protocol_of
from clearclip.utils.files import write_atomically
from clearclip.utils.fingerprint import hash_file

#: Differences to the published figure beyond this many points are coloured.
NOTABLE = 0.5
_BETTER, _WORSE = (PatternFill("solid", fgColor=colour) for colour in ("BBD7F0", "F6C9A8"))
_RIGHT = Alignment(horizontal="right")
_BOLD, _TITLE, _GREY = Font(bold=True), Font(bold=True, size=14), Font(italic=True, color="666666")
#: Where a workbook says which of its sheets are made here; all others are the user's, and stay.
_OURS = "sheets of ClearCLIP"
#: And of which records it was made.
_RECORDS = "records of ClearCLIP"
_NOTES = (
    "here: measured, complete runs of the published images by this protocol only; all others are in the sheet of runs",
    "publ.: published; re-run: an independent run of others; diff.: here minus published, in points",
    "–: not measured here; n/a: not published. Coloured: more than 0.5 points from the published figure",
)
#: What a table shows of a cell: its heading, what stands where there is nothing, and the number's format.
_PARTS = {
    "measured": ("here", "–", "0.0"),
    "published": ("publ.", "n/a", "0.0"),
    "rerun": ("re-run", "n/a", "0.0"),
    "difference": ("diff.", "–", "+0.0;-0.0;0.0"),
}


def update_workbook(results: str | Path, force: bool = False) -> bool:
    """Make the workbook again if it is not that of its records. One that cannot be written costs no result.

    Sheets that are the user's own stay; a file that is no workbook is kept under another name.

    Args:
        results: the workbook.
        force: make it again in any case.

    Returns:
        Whether the workbook shows all records now.
    """
    results = check_results_path(results)
    try:
        with FileLock(f"{results}.lock"):
            for left in results.parent.glob(f".{results.stem}-*.xlsx"):  # of a process that was killed
                left.unlink(missing_ok=True)
            book, records = _open(results), records_path(results)
            made_of = hash_file(records)
            if force or _property(book, _RECORDS) != made_of:
                if results.exists() and not results.stat().st_mode & 0o222:
                    raise PermissionError("it is read-only")
                make_workbook(*read_records(results), book)
                _set_property(book, _RECORDS, made_of)
                write_atomically(results, book.save)
    except OSError as error:
        warnings.warn(
            f"{results} was not written ({error}); the records are safe in {records_path(results)}, and the next run, "
            "or python eval_all.py --rebuild, makes the workbook from them",
            stacklevel=2,
        )
        return False
    return True


def _property(book: Workbook, name: str) -> str:
    return next((one.value or "" for one in book.custom_doc_props.props if one.name == name), "")


def _set_property(book: Workbook, name: str, value: str) -> None:
    if name in book.custom_doc_props.names:
        del book.custom_doc_props[name]
    book.custom_doc_props.append(StringProperty(name=name, value=value))


def _open(results: Path) -> Workbook:
    """The workbook as it is, or an empty one."""
    if not results.is_file():
        return Workbook()
    try:
        book = openpyxl.load_workbook(results)
    except Exception as error:  # what openpyxl raises on what is no workbook is of many kinds
        numbers = ("", *range(2, 1000))
        kept = next(path for n in numbers if not (path := results.with_name(f"{results.stem}.before{n}.xlsx")).exists())
        warnings.warn(f"{results} is no workbook ({error}); it is kept as {kept}", stacklevel=3)
        results.replace(kept)
        return Workbook()
    return book


def make_workbook(records: Sequence[dict[str, Any]], remarks: Sequence[str], book: Workbook) -> None:
    """Make the sheets of these records anew in a workbook; the user's own stay.

    Args:
        records, remarks: as :func:`~clearclip.results.records.read_records` gives them.
        book: where.
    """
    made_before = _property(book, _OURS).split("|")
    blank = [sheet.title for sheet in book.worksheets if sheet.dimensions == "A1:A1" and sheet["A1"].value is None]
    for name in {*made_before, *blank} & {*book.sheetnames}:
        book.remove(book[name])
    own = list(book.worksheets)
    made = [_add_runs(book, records, remarks)]
    first, *others = protocol_names()
    sheets = [(table, first, False) for table in TABLES]
    sheets += [("family", name, False) for name in others if any(protocol_of(one) == name for one in records)]
    if any(one["dataset"] == "miniature" for one in records):
        sheets += [(table, first, True) for table in ("2", "ablation", "family")]
    made += [_add_table(book, records, *which) for which in sheets]
    for dataset in dict.fromkeys(one["dataset"] for one in records):
        made.append(_add_classes(book, dataset, [one for one in records if one["dataset"] == dataset]))
    book._sheets.sort(key=lambda sheet: sheet in own)  # the user's own at the end
    _set_property(book, _OURS, "|".join(sheet.title for sheet in made))


def _sheet(book: Workbook, name: str, heading: str) -> Worksheet:
    name = "".join(" " if letter in "[]:*?/\\'" else letter for letter in _text(name))[:26] or "sheet"
    sheet = book.create_sheet(name)  # openpyxl numbers it where the user has a sheet of that name
    sheet["A1"], sheet["A1"].font = _text(heading), _TITLE
    sheet.page_setup.orientation, sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = "landscape", 1, 0
    sheet.sheet_properties.pageSetUpPr.fitToPage = True
    return sheet


def _text(value: Any) -> Any:
    """A value that a cell can hold."""
    if isinstance(value, str):
        return ILLEGAL_CHARACTERS_RE.sub("�", value)[:32000]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _add_runs(book: Workbook, records: Sequence[dict[str, Any]], remarks: Sequence[str]) -> Worksheet:
    """One line per run: what it was, its scores, and every setting that changes the result."""
    sheet = _sheet(book, "runs", "All runs: mIoU and accuracies in percent, and what each number depends on")
    lines = []
    for record in records:
        facts = {} if record.get("remark") else record["facts"]
        known = ("classes", "iou", "facts", "checksum")
        line = {name: value for name, value in record.items() if name not in known and not isinstance(value, dict)}
        line["dataset"], line["protocol"] = title(record["dataset"]), protocol_of(record)
        for part, values in facts.items():
            values = values if isinstance(values, dict) else {part: values}
            line |= {f"{part}: {name}": value for name, value in values.items()}
        lines.append({name: _text(value) for name, value in line.items()})
    columns = list(dict.fromkeys(name for line in lines for name in line))
    sheet.append(columns)
    for line in lines:
        cells = [line.get(name) for name in columns]
        # A score that does not exist is not a number; its cell stays empty.
        sheet.append([None if cell != cell else cell for cell in cells])
    _finish(sheet, 2, 0, remarks)
    own = max(1, sum(": " not in name for name in columns))  # what the numbers depend on is for the screen
    for cell in chain.from_iterable(sheet.iter_rows(min_row=3, max_col=own)):
        cell.number_format = "0.00" if isinstance(cell.value, float) else cell.number_format
    sheet.print_area = f"A1:{get_column_letter(own)}{sheet.max_row}"
    return sheet


def _add_classes(book: Workbook, dataset: str, records: Sequence[dict[str, Any]]) -> Worksheet:
    """IoU: classes × the latest runs of each method, by the order of the classes; names are labels only."""
    sheet = _sheet(book, f"IoU {title(dataset)}", f"{title(dataset)}: IoU of each class, %")
    latest: dict[tuple, dict[str, Any]] = {}
    for one in records:
        if isinstance(one.get("iou"), list) and isinstance(one.get("classes"), list):
            weights = {} if one.get("remark") else one["facts"]["weights"]
            named = weights.get("clip_type") or weights.get("model") or ""
            key = (one["method"], " ".join(filter(None, (named, weights.get("vit_type")))), protocol_of(one))
            latest[(*key, len(one["iou"]))] = one
    for line in zip(("method", "weights", "protocol"), *latest, strict=False):
        sheet.append([*map(_text, line)])
    names = max((one["classes"] for one in latest.values()), key=len, default=[])
    for name, *values in zip_longest(names, *(one["iou"] for one in latest.values())):
        sheet.append([_text(str(name)), *("n/a" if value is None else value for value in values)])
    sheet.append(["mIoU", *(one["mIoU"] for one in latest.values())])
    for cell in chain.from_iterable(sheet.iter_rows(min_row=5, min_col=2)):
        cell.number_format, cell.alignment = "0.0", _RIGHT
    _finish(sheet, 4, 1)
    return sheet


def _add_table(
    book: Workbook, records: Sequence[dict[str, Any]], table: str, protocol: str, miniature: bool
) -> Worksheet:
    """The paper's layout: rows × datasets, each with measured and published mIoU, a re-run's, and their difference."""
    name = f"table {table}" if table.isdigit() else table
    ours = f"{'miniature, ' * miniature}{name}"
    which = "" if protocol == protocol_names()[0] else f", protocol {protocol}"
    sheet = _sheet(book, ours + which.replace("protocol ", ""), f"ClearCLIP, {ours}{which}: mIoU, %")
    datasets = ("miniature",) if miniature else TABLES[table]
    rows = [(row, fill_row(table, row, datasets, records, protocol)) for row in table_rows(table, miniature)]
    sheet.append(["ViT", "system", "ClearCLIP"])
    columns = []  # (place of the cell, what is shown of it)
    for place, heading in enumerate(headings(table, datasets)):
        again = any(cells[place].rerun is not None for _, cells in rows)
        parts = ["measured"] if miniature else [part for part in _PARTS if part != "rerun" or again]
        start = 4 + len(columns)
        sheet.cell(2, start, heading).alignment = Alignment(horizontal="center")
        sheet.merge_cells(start_row=2, start_column=start, end_row=2, end_column=start + len(parts) - 1)
        columns += [(place, part) for part in parts]
    sheet.append([None, None, None, *(_PARTS[part][0] for _, part in columns)])
    for number, (row, cells) in enumerate(rows, start=4):
        sheet.append([row.vit, row.name, row.clearclip])
        for column, (place, part) in enumerate(columns, start=4):
            value, mark, (_, missing, form) = getattr(cells[place], part), cells[place].marks.get(part), _PARTS[part]
            there = sheet.cell(number, column, missing if value is None else value)
            there.number_format = f'{form}"{mark}"' if mark else form
            if part == "difference" and value is not None and abs(value) > NOTABLE:
                there.fill = _BETTER if value > 0 else _WORSE
    for cell in chain.from_iterable(sheet.iter_rows(min_row=3, min_col=4)):
        cell.alignment = _RIGHT
    every = [cell for _, cells in rows for cell in cells]
    marks = [note for note in (STATED, SECOND_HAND) if any(note[0] in cell.marks.values() for cell in every)]
    sources = dict.fromkeys(f"published: {cell.source}" for cell in every if cell.source)
    _finish(sheet, 3, 3, [*_NOTES, *marks, *sources])
    return sheet


def _finish(sheet: Worksheet, header: int, columns: int, notes: Sequence[str] = ()) -> None:
    """Bold headings that stay in view and come again on every page; columns as wide as what stands in them; notes."""
    for cell in chain.from_iterable(sheet.iter_rows(min_row=2, max_row=header)):
        cell.font = _BOLD
    sheet.freeze_panes = sheet.cell(header + 1, columns + 1)
    sheet.print_title_rows = f"1:{header}"
    for index, column in enumerate(sheet.iter_cols(min_row=2), start=1):
        shown = [cell.value for cell in column if cell.row >= header or index <= columns]
        texts = [f"{value:.1f}" if isinstance(value, float) else str(value or "") for value in shown]
        sheet.column_dimensions[get_column_letter(index)].width = min(max(map(len, texts), default=6) + 2, 34)
    for note in notes:
        sheet.append([_text(note)])
        sheet.cell(sheet.max_row, 1).font = _GREY

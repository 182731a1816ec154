"""``results.xlsx``, made from the records: which of its sheets are ours, and when it is made again."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from pathlib import Path

import openpyxl
from openpyxl.packaging.custom import StringProperty
from openpyxl.workbook import Workbook
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.worksheet import Worksheet

from clearclip.results.data_files import data_digest
from clearclip.results.records import check_results_path, locked_records, read_records, records_path
from clearclip.results.sheet_style import sheet_title
from clearclip.results.word_tables import read_studies, studies_digest
from clearclip.results.workbook_parts import unreadable_parts
from clearclip.results.workbook_sheets import Sheet, make_sheets
from clearclip.utils.files import write_atomically
from clearclip.utils.fingerprint import digest, hash_file

#: The property by which a workbook says of what it was made.
_MADE_OF = "made by ClearCLIP of"
#: Raised when sheets change their layout, so that workbooks are made again.
_LAYOUT = 2
#: The name, hidden and of one sheet only, by which a sheet is known as ours.
_MARK = "ClearCLIP_sheet"


def update_workbook(results: str | Path, force: bool = False, opens_on: str | None = None) -> bool:
    """Make the workbook again if it is not that of its records. One that cannot be written costs no result.

    Sheets that are the user's own stay; a file that is no workbook is kept under another name.

    Args:
        results: the workbook.
        force: make it again in any case.
        opens_on: the title of the table that it opens on; None takes the first that shows a measured number.

    Returns:
        Whether the workbook shows all records now.
    """
    results = check_results_path(results)
    try:
        results.parent.mkdir(parents=True, exist_ok=True)
        with locked_records(results):
            for temporary in results.parent.glob(f".{results.stem}-*.xlsx"):  # of a process that was killed
                temporary.unlink(missing_ok=True)
            book, is_new = _open_workbook(results)
            studies = read_studies(results)
            made_of = digest(
                [_LAYOUT, hash_file(records_path(results)), data_digest(), opens_on, studies_digest(results)]
            )
            if force or _property(book, _MADE_OF) != made_of:
                if results.exists() and not results.stat().st_mode & 0o222:
                    raise PermissionError("it is read-only")
                make_workbook(make_sheets(*read_records(results), studies), book, is_new, opens_on)
                _set_property(book, _MADE_OF, made_of)
                _keep_unreadable_parts(results)
                write_atomically(results, book.save)
    except OSError as error:
        warnings.warn(
            f"{results} was not written ({error}); the records are safe in {records_path(results)}, and the next run, "
            "or python eval_all.py --rebuild, makes the workbook from them",
            stacklevel=2,
        )
        return False
    return True


def _open_workbook(results: Path) -> tuple[Workbook, bool]:
    """The workbook as it is, or an empty one; and whether it is new."""
    if not results.is_file():
        return Workbook(), True
    try:
        return openpyxl.load_workbook(results), False
    except Exception as error:  # what openpyxl raises on what is no workbook is of many kinds
        kept_as = _free_name(results)
        warnings.warn(f"{results} is no workbook ({error}); it is kept as {kept_as}", stacklevel=3)
        results.replace(kept_as)
        return Workbook(), True


def _keep_unreadable_parts(results: Path) -> None:
    """Keep a copy of the workbook where the user has put something on it that would not come back."""
    kinds = unreadable_parts(results)
    if kinds:
        kept_as = _free_name(results)
        shutil.copy2(results, kept_as)
        warnings.warn(
            f"{results} has {', '.join(kinds)}, which are lost where it is written again; it is kept as {kept_as}, and "
            "sheets of your own are safe from this in a workbook of their own",
            stacklevel=4,
        )


def _free_name(results: Path) -> Path:
    """A name beside the workbook that no file has."""
    for number in ("", *range(2, 10_000)):
        path = results.with_name(f"{results.stem}.before{number}.xlsx")
        if not path.exists():
            return path
    raise FileExistsError(f"{results.stem}.before.xlsx and all its numbers exist")


def _property(book: Workbook, name: str) -> str:
    for entry in book.custom_doc_props.props:
        if entry.name == name:
            return entry.value or ""
    return ""


def _set_property(book: Workbook, name: str, value: str) -> None:
    if name in book.custom_doc_props.names:
        del book.custom_doc_props[name]
    book.custom_doc_props.append(StringProperty(name=name, value=value))


def _mark(sheet: Worksheet) -> None:
    """Mark a sheet as ours."""
    value = f'"{_title_digest(sheet)}"'
    sheet.defined_names[_MARK] = DefinedName(_MARK, attr_text=value, hidden=True)


def is_ours(sheet: Worksheet) -> bool:
    """Whether a sheet was made here. One that the user has copied or renamed is theirs."""
    mark = sheet.defined_names.get(_MARK)
    return mark is not None and mark.attr_text == f'"{_title_digest(sheet)}"'


def _title_digest(sheet: Worksheet) -> str:
    # A title is any text; its digest is none that a program could take for a formula.
    return hashlib.sha256(sheet.title.encode("utf-8", "replace")).hexdigest()[:16]


def make_workbook(sheets: list[Sheet], book: Workbook, is_new: bool, opens_on: str | None = None) -> None:
    """Make sheets anew in a workbook, before the user's own, which stay as they are.

    Args:
        sheets: what :func:`~clearclip.results.workbook_sheets.make_sheets` gives, in their order.
        book: where.
        is_new: it has nothing but openpyxl's empty sheet.
        opens_on: the title of the sheet that it opens on.
    """
    # Ours are removed and made anew: openpyxl cannot empty a sheet and forget its formats.
    for worksheet in list(book.worksheets):
        if is_new or is_ours(worksheet):
            book.remove(worksheet)
    for position, sheet in enumerate(sheets):
        # openpyxl numbers the title where the user has a sheet of that name.
        worksheet = book.create_sheet(sheet_title(sheet.title), position)
        sheet.write(worksheet)
        _mark(worksheet)
    book.active = _opened_position(sheets, opens_on)
    for worksheet in book.worksheets:
        # More than one selected sheet would be edited together.
        worksheet.sheet_view.tabSelected = worksheet is book.active


def _opened_position(sheets: list[Sheet], opens_on: str | None) -> int:
    """The sheet that is shown first: the one that is named, else the first table with a measured number."""
    titles = [sheet.title for sheet in sheets]
    if opens_on in titles:
        return titles.index(opens_on)
    for position, sheet in enumerate(sheets):
        if sheet.has_measured:
            return position
    return 0

"""``results.xlsx``: a sheet of runs, a sheet per table with the published figures, a sheet of per-class IoU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from clearclip.results.cells import columns, fill_row, protocol_of
from clearclip.results.protocols import PROTOCOLS
from clearclip.results.rows import TABLES, table_datasets, table_rows
from clearclip.utils.files import write_atomically

#: Differences to the published figure beyond this many points are coloured.
NOTABLE = 0.5
_BETTER = PatternFill("solid", fgColor="BBD7F0")
_WORSE = PatternFill("solid", fgColor="F6C9A8")
_BOLD = Font(bold=True)
_CENTRE = Alignment(horizontal="center")


def write_workbook(rows: list[dict[str, Any]], path: str | Path, root: Path) -> Path:
    """Write the workbook of these runs, whole or not at all.

    Args:
        rows: as :func:`clearclip.results.records.make_row` makes them.
        path: ends in ``.xlsx``.
        root: the folder that has ``config/``.
    """

    def write(temporary: Path) -> None:
        with pd.ExcelWriter(temporary, engine="openpyxl") as writer:
            runs_frame(rows, root).to_excel(writer, sheet_name="runs", index=False)
            per_class_frame(rows).to_excel(writer, sheet_name="per-class IoU", index=False)
            for sheet in writer.sheets.values():
                _finish(sheet)
            for table in TABLES:
                _add_table(writer.book.create_sheet(_title(table)), table, rows, False, root)
            for protocol in PROTOCOLS[1:]:
                if any(protocol_of(row, root).startswith(protocol) for row in rows):
                    sheet = writer.book.create_sheet(f"family, protocol {protocol}")
                    _add_table(sheet, "family", rows, False, root, protocol)
            if any(row["dataset"] == "miniature" for row in rows):
                for table in ("2", "ablation", "family"):
                    sheet = writer.book.create_sheet(f"miniature, {_title(table)}")
                    _add_table(sheet, table, rows, True, root)

    return write_atomically(path, write)


def _title(table: str) -> str:
    return f"table {table}" if table.isdigit() else table


def runs_frame(rows: list[dict[str, Any]], root: Path) -> pd.DataFrame:
    """One line per run: what it was, its scores, and every setting that changes the result."""
    lines = []
    for row in rows:
        line = {name: value for name, value in row.items() if name not in ("settings", "per_class")}
        line["protocol"] = protocol_of(row, root)
        # The columns CLIP, VIT and dataset say these already.
        known = ("clip_type", "vit_type", "model_name", "dataset", "method")
        settings = {name: value for name, value in row["settings"].items() if name not in known}
        settings["method options"] = row["settings"]["method"]
        lines.append({**line, **{name: _plain(value) for name, value in settings.items()}})
    return pd.DataFrame(lines)


def per_class_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One line per run and class."""
    return pd.DataFrame(
        [
            {
                "time": row["time"],
                "dataset": row["dataset"],
                "CLIP": row["CLIP"],
                "VIT": row["VIT"],
                "method": row["method"],
                "class": name,
                "IoU": iou,
            }
            for row in rows
            for name, iou in row["per_class"].items()
        ],
        columns=["time", "dataset", "CLIP", "VIT", "method", "class", "IoU"],
    )


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _add_table(
    sheet: Worksheet,
    table: str,
    runs: list[dict[str, Any]],
    miniature: bool,
    root: Path,
    protocol: str = PROTOCOLS[0],
) -> None:
    """The paper's layout: rows × datasets, each with measured and published mIoU and their difference."""
    datasets = table_datasets(table, miniature)
    sheet.append(["ViT", "system", "ClearCLIP"])
    sheet.append([None, None, None])
    for index, heading in enumerate(columns(table, datasets)):
        first = 4 + 3 * index
        sheet.cell(1, first, heading).alignment = _CENTRE
        sheet.merge_cells(start_row=1, start_column=first, end_row=1, end_column=first + 2)
        for offset, name in enumerate(("measured", "published", "difference")):
            sheet.cell(2, first + offset, name)
    for number, row in enumerate(table_rows(table, miniature), start=3):
        for column, value in enumerate((row.vit, row.name, row.clearclip), start=1):
            sheet.cell(number, column, value)
        for index, cell in enumerate(fill_row(table, row, datasets, runs, root, protocol)):
            for offset, value in enumerate((cell.measured, cell.published, cell.difference)):
                place = sheet.cell(number, 4 + 3 * index + offset, None if value is None else round(value, 2))
                place.number_format = "+0.0;-0.0;0.0" if offset == 2 else "0.0"
                if offset == 2 and value is not None and abs(value) > NOTABLE:
                    place.fill = _BETTER if value > 0 else _WORSE
    _finish(sheet, header_rows=2)


def _finish(sheet: Worksheet, header_rows: int = 1) -> None:
    """Bold headings that stay in view, and columns as wide as what stands in them."""
    for row in sheet.iter_rows(max_row=header_rows):
        for cell in row:
            cell.font = _BOLD
    sheet.freeze_panes = sheet.cell(header_rows + 1, 1 if header_rows == 1 else 4)
    for index, column in enumerate(sheet.iter_cols(min_row=header_rows), start=1):
        width = max((len(str(cell.value)) for cell in column if cell.value is not None), default=8)
        sheet.column_dimensions[get_column_letter(index)].width = min(max(width + 2, 8), 40)

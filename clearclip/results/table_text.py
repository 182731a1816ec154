"""A table as text: Markdown for a README, LaTeX for a paper, CSV for other programs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence

from clearclip.results.cells import Cell, FilledRow, fill_table, headings, marked_name, notes_of
from clearclip.results.record import Record
from clearclip.results.table_definitions import Table
from clearclip.utils.printable import printable

#: Characters that mean something else in LaTeX, and what stands for them.
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "–": "--", "α": r"$\alpha$",
    "*": r"$^{*}$", "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
})  # fmt: skip
#: Characters that end a cell of Markdown, or begin a format.
_ESCAPED_IN_MARKDOWN = re.compile(r"[|\\`<\[\]*]")
#: What a text begins with that a spreadsheet takes for a formula.
_FORMULA = ("=", "+", "-", "@")


def to_markdown(table: Table, records: Sequence[Record], protocol: str) -> str:
    """A table for a README: measured, and the published figure in brackets."""
    columns = headings(table)
    rows = fill_table(table, records, protocol)
    lines = [f"| ViT | system | ClearCLIP | {' | '.join(columns)} |", "|---|---|---|" + "---:|" * len(columns)]
    for row, cells in rows:
        texts = [_markdown(row.vit), _markdown(marked_name(row, row.name)), row.clearclip, *map(str, cells)]
        lines.append(f"| {' | '.join(texts)} |")
    for note in notes_of(rows):
        lines += ["", _markdown(note)]
    return "\n".join(lines)


def to_latex(table: Table, records: Sequence[Record], protocol: str) -> str:
    r"""A table for a paper, with the package booktabs: measured, and the published figure in brackets. The best
    measured number of each column is bold; where nothing was measured, the best published one.
    """
    columns = headings(table)
    rows = fill_table(table, records, protocol)
    title = _latex(f"{table.title}, protocol {protocol}: mIoU, %, measured (published)")
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{title}}}",
        rf"  \begin{{tabular}}{{ll{'r' * len(columns)}}}",
        r"    \toprule",
        f"    {' & '.join(['ViT', 'System', *map(_latex, columns)])} \\\\",
        r"    \midrule",
        *_latex_rows(rows),
        r"    \bottomrule",
        r"  \end{tabular}",
    ]
    lines += [rf"  \par\footnotesize {_latex(note)}" for note in notes_of(rows)]
    return "\n".join([*lines, r"\end{table}"])


def _latex_rows(rows: Sequence[FilledRow]) -> list[str]:
    """The lines of the rows, with a rule between the sizes of the image tower."""
    lines: list[str] = []
    # Rows come size by size, as in the paper.
    size = rows[0][0].vit
    best = _best_of_columns(rows)
    for row, cells in rows:
        if row.vit != size:
            lines.append(r"    \midrule")
            size = row.vit
        texts = [_latex(row.vit), _latex(marked_name(row, row.system)), *map(_latex_cell, cells, best)]
        lines.append(f"    {' & '.join(texts)} \\\\")
    return lines


def _best_of_columns(rows: Sequence[FilledRow]) -> list[tuple[str, str]]:
    """For each column the number that is bold: whether it is measured or published, and how it is printed."""
    return [_best(column) for column in _columns_of(rows)]


def _columns_of(rows: Sequence[FilledRow]) -> list[tuple[Cell, ...]]:
    """The cells of a table column by column."""
    cells_by_row = [cells for _, cells in rows]
    return list(zip(*cells_by_row, strict=True))


def _best(cells: Sequence[Cell]) -> tuple[str, str]:
    measured = [cell.measured for cell in cells if cell.measured is not None]
    if measured:
        return "measured", f"{max(measured):.1f}"
    published = [cell.published.miou for cell in cells if cell.published is not None]
    if published:
        return "published", f"{max(published):.1f}"
    return "nothing", ""


def _latex_cell(cell: Cell, best: tuple[str, str]) -> str:
    """Measured (published); the number that is the best of its column is bold."""
    measured, published = _latex(cell.measured_text), _latex(cell.published_text)
    # Rounded numbers are compared: what is printed alike is bold alike.
    if cell.measured is not None and best == ("measured", f"{cell.measured:.1f}"):
        measured = rf"\textbf{{{measured}}}"
    if cell.published is not None and best == ("published", f"{cell.published.miou:.1f}"):
        published = rf"\textbf{{{published}}}"
    if not published:
        return measured
    return f"{measured} ({published})"


def to_csv(table: Table, records: Sequence[Record], protocol: str) -> str:
    """A table for other programs: measured numbers in full, published ones and re-runs in columns of their own."""
    rows = fill_table(table, records, protocol)
    rerun_names = _rerun_names(rows)
    header = ["vit", "system", "protocol"]
    for title, names in zip(headings(table), rerun_names, strict=True):
        header += [title, f"{title} published"]
        header += [f"{title} re-run by {name}" for name in names]
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([*header, "notes"])
    for row, cells in rows:
        values: list[float | None] = []
        for cell, names in zip(cells, rerun_names, strict=True):
            values += _csv_numbers(cell, names)
        # The mark that a note begins with has no number beside it here.
        notes = "; ".join(note[2:] for note in notes_of([(row, cells)]))
        writer.writerow([csv_name(row.vit), csv_name(row.system), protocol, *values, notes])
    return output.getvalue().rstrip("\n")


def _rerun_names(rows: Sequence[FilledRow]) -> list[list[str]]:
    """For each column who measured any of its cells again."""
    names_by_column: list[list[str]] = []
    for column in _columns_of(rows):
        names: dict[str, None] = {}
        for cell in column:
            names |= dict.fromkeys(cell.reruns)
        names_by_column.append(list(names))
    return names_by_column


def _csv_numbers(cell: Cell, rerun_names: Sequence[str]) -> list[float | None]:
    """The numbers of a cell: measured, published, and those of the re-runs; None where there is none."""
    numbers = [cell.measured, None]
    if cell.published is not None:
        numbers[1] = cell.published.miou
    for name in rerun_names:
        rerun = cell.reruns.get(name)
        numbers.append(None if rerun is None else rerun.miou)
    return numbers


#: What ``eval_all.py`` can print a table as, by the name of its option.
TABLE_FORMATS: dict[str, Callable[[Table, Sequence[Record], str], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
}


def _markdown(text: str) -> str:
    """A name in a cell of Markdown."""
    return _ESCAPED_IN_MARKDOWN.sub(r"\\\g<0>", printable(text))


def _latex(text: str) -> str:
    """A text in LaTeX, whatever characters it has."""
    return printable(text).translate(_LATEX)


def csv_name(text: str) -> str:
    """A name in CSV, which no program computes."""
    # An apostrophe is what spreadsheets themselves put before a text that is not to be computed.
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text

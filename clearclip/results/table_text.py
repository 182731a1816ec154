"""A table as text: Markdown for a README, LaTeX for a paper, CSV for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from clearclip.results.cells import OWN_ROW, Cell, fill_row, headings, notes_of
from clearclip.results.record import Record
from clearclip.results.table_definitions import Row, Table
from clearclip.utils.printable import printable

#: Characters that mean something else in LaTeX, and what stands for them.
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "–": "--", "α": r"$\alpha$",
    "*": r"$^{*}$", "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def to_markdown(table: Table, records: Sequence[Record], protocol: str) -> str:
    """A table for a README: measured, and the published figure in brackets."""
    columns = headings(table)
    lines = [f"| ViT | system | ClearCLIP | {' | '.join(columns)} |", "|---|---|---|" + "---:|" * len(columns)]
    every_cell: list[Cell] = []
    for row in table.rows:
        cells = fill_row(table, row, records, protocol)
        every_cell += cells
        texts = [_markdown(row.vit), _markdown(_name(row)), row.clearclip, *map(str, cells)]
        lines.append(f"| {' | '.join(texts)} |")
    notes = [f"\n{_markdown(note)}" for note in notes_of(table.rows, every_cell)]
    return "\n".join([*lines, *notes])


def to_latex(table: Table, records: Sequence[Record], protocol: str) -> str:
    r"""A table for a paper, with the package booktabs: measured, and the published figure in brackets. The best
    measured number of each column is bold; where nothing was measured, the best published one.
    """
    columns = headings(table)
    every_row = [fill_row(table, row, records, protocol) for row in table.rows]
    best = [_best([cells[column] for cells in every_row]) for column in range(len(columns))]
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
    ]
    for number, (row, cells) in enumerate(zip(table.rows, every_row, strict=True)):
        if number and row.vit != table.rows[number - 1].vit:
            lines.append(r"    \midrule")
        texts = [_latex_cell(cell, bold) for cell, bold in zip(cells, best, strict=True)]
        mark = OWN_ROW[0] if row.is_own else ""
        lines.append(f"    {' & '.join([_latex(row.vit), _latex(row.system + mark), *texts])} \\\\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    every_cell = [cell for cells in every_row for cell in cells]
    lines += [rf"  \par\footnotesize {_latex(note)}" for note in notes_of(table.rows, every_cell)]
    return "\n".join([*lines, r"\end{table}"])


def to_csv(table: Table, records: Sequence[Record], protocol: str) -> str:
    """A table for other programs: measured numbers in full, published ones and re-runs in columns of their own."""
    every_row = [fill_row(table, row, records, protocol) for row in table.rows]
    columns = headings(table)
    rerun_names = [
        list(dict.fromkeys(name for cells in every_row for name in cells[column].reruns))
        for column in range(len(columns))
    ]
    header = ["vit", "system", "protocol"]
    for title, names in zip(columns, rerun_names, strict=True):
        header += [title, f"{title} published", *(f"{title} re-run by {name}" for name in names)]
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([*header, "notes"])
    for row, cells in zip(table.rows, every_row, strict=True):
        values: list[float | str | None] = []
        for cell, names in zip(cells, rerun_names, strict=True):
            values += [cell.measured, cell.published.miou if cell.published is not None else None]
            values += [cell.reruns[name].miou if name in cell.reruns else None for name in names]
        notes = "; ".join(note[2:] for note in notes_of([row], cells))
        writer.writerow([csv_name(row.vit), csv_name(row.system), protocol, *values, notes])
    return output.getvalue().rstrip("\n")


#: What ``eval_all.py`` can print a table as, by the name of its option.
FORMATS: dict[str, Callable[[Table, Sequence[Record], str], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
}


def _name(row: Row) -> str:
    """A row's name, with a mark where it is no published row."""
    return f"{row.name}{OWN_ROW[0]}" if row.is_own else row.name


def _markdown(text: str) -> str:
    """A name in a cell of Markdown: what would end the cell or begin a format is escaped."""
    return "".join(f"\\{letter}" if letter in "|\\`<[]*" else letter for letter in printable(text))


def _latex(text: str) -> str:
    """A text in LaTeX, whatever characters it has."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


def csv_name(text: str) -> str:
    """A name in CSV. Programs that show tables would compute what begins like a formula."""
    text = printable(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _best(cells: Sequence[Cell]) -> tuple[str, str]:
    """The number of a column that is bold: whether it is measured or published, and how it is printed."""
    measured = [cell.measured for cell in cells if cell.measured is not None]
    if measured:
        return "measured", f"{max(measured):.1f}"
    published = [cell.published.miou for cell in cells if cell.published is not None]
    return "published", f"{max(published):.1f}" if published else ""


def _latex_cell(cell: Cell, best: tuple[str, str]) -> str:
    """Measured (published); the number that is the best of its column is bold."""
    measured, published = _latex(cell.measured_text), _latex(cell.published_text)
    # Rounded numbers are compared: what is printed alike is bold alike.
    if cell.measured is not None and best == ("measured", f"{cell.measured:.1f}"):
        measured = rf"\textbf{{{measured}}}"
    if cell.published is not None and best == ("published", f"{cell.published.miou:.1f}"):
        published = rf"\textbf{{{published}}}"
    return f"{measured} ({published})" if published else measured

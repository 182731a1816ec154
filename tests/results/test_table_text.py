"""Tables as Markdown, LaTeX and CSV: measured beside published, the best in bold, and no name that breaks out."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess

import pytest
from recorded_runs import CLEARCLIP, find_row, make_record

from clearclip.results.own_rows import own_rows
from clearclip.results.table_definitions import find_table
from clearclip.results.table_text import TABLE_FORMATS, to_csv, to_latex, to_markdown

TABLE = find_table("2").with_datasets(["voc20", "ade20k"])
ROWS = [find_row("2", system) for system in ("CLIP", "CLIP + ClearCLIP", "SCLIP")]
SMALL = TABLE.with_rows(ROWS)
RECORDS = [make_record("voc20", 900), make_record("voc20", 400, ROWS[0]), make_record("voc20", 899.9, ROWS[2])]
ODD_NAME = r"=A_1 & 50% of {x}~^\ #3 $|* <b>[/b]"


def test_markdown():
    lines = to_markdown(SMALL, RECORDS, "clearclip").splitlines()
    assert lines[0] == "| ViT | system | ClearCLIP | VOC20 | ADE20K | average |"
    assert lines[3] == "| ViT-B/16 | CLIP | yes | 45.0 (80.9) | – (16.7) | – (37.5) |"


def test_marks_in_markdown():
    records = [make_record("voc20", 600, weights__origin="stated")]
    text = to_markdown(TABLE.with_rows([CLEARCLIP]), records, "clearclip")
    assert "| 30.0* (80.9) |" in text
    assert "weights as stated by the user" in text


def test_latex():
    text = to_latex(SMALL, RECORDS, "clearclip")
    lines = [line.strip() for line in text.splitlines()]
    assert r"ViT & System & VOC20 & ADE20K & average \\" in lines
    # The best measured number; where nothing was measured, the best published one. What is printed alike is bold alike.
    assert r"ViT-B/16 & CLIP & 20.0 (41.8) & -- (2.1) & -- (12.6) \\" in lines
    assert r"ViT-B/16 & CLIP + ClearCLIP & \textbf{45.0} (80.9) & -- (\textbf{16.7}) & -- (\textbf{37.5}) \\" in lines
    assert r"ViT-B/16 & SCLIP & \textbf{45.0} (78.2) & -- (14.6) & -- (35.2) \\" in lines
    assert {r"\toprule", r"\midrule", r"\bottomrule"} <= {*lines}


def test_sizes_are_apart_in_latex():
    assert to_latex(TABLE, [], "clearclip").count(r"\midrule") == 2


def odd_table():
    record = make_record("voc20", 700, method__label=ODD_NAME, method__source="01")
    return TABLE.with_rows([CLEARCLIP, *own_rows(TABLE, [record], "clearclip")]), [record]


def test_names_stay_names():
    table, records = odd_table()
    latex = to_latex(table, records, "clearclip")
    row = next(line for line in latex.splitlines() if "ddagger" in line)
    assert len(re.findall(r"(?<!\\)&", row)) == 4, "as many cells as columns"
    assert not re.search(r"(?<!\\)[%#_]", row)
    markdown = to_markdown(table, records, "clearclip").splitlines()[3]
    assert len(re.findall(r"(?<!\\)\|", markdown)) == 7
    assert r"\<b>\[/b\]‡" in markdown
    (line,) = [line for line in csv.reader(io.StringIO(to_csv(table, records, "clearclip"))) if "50%" in line[1]]
    assert line[1] == f"'{ODD_NAME}", "no program computes it"


def test_csv():
    lines = list(csv.DictReader(io.StringIO(to_csv(SMALL, RECORDS, "clearclip"))))
    assert [line["system"] for line in lines] == ["CLIP", "CLIP + ClearCLIP", "SCLIP"]
    assert [float(line["VOC20"]) for line in lines] == pytest.approx([20, 45, 44.995])
    assert [line["VOC20 published"] for line in lines] == ["41.8", "80.9", "78.2"]
    assert [line["VOC20 re-run by CCAR-CLIP"] for line in lines] == ["", "80.93", "81.54"]
    assert [line["average published"] for line in lines] == ["12.6", "37.5", "35.2"]
    assert {line["ADE20K"] for line in lines} == {""}


@pytest.mark.parametrize("name", TABLE_FORMATS)
@pytest.mark.parametrize("table", ["2", "background", "ablation", "family", "backbones", "remote", "large"])
def test_every_table_in_every_format(name, table):
    assert TABLE_FORMATS[name](find_table(table), [], "clearclip").strip()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    table, records = odd_table()
    body = "\n".join(to_latex(shown, records, "clearclip") for shown in (table, find_table("ablation")))
    page = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]

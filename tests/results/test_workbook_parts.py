"""What a user has drawn into the workbook is not lost when it is written again."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import openpyxl
import pytest
from openpyxl.drawing.image import Image
from PIL import Image as Picture
from recorded_runs import append_run

from clearclip.results.workbook import update_workbook
from clearclip.results.workbook_parts import unreadable_parts

#: A rectangle as spreadsheet programs write it.
SHAPE = """<xdr:twoCellAnchor><xdr:from><xdr:col>1</xdr:col><xdr:colOff>0</xdr:colOff><xdr:row>1</xdr:row>
<xdr:rowOff>0</xdr:rowOff></xdr:from><xdr:to><xdr:col>3</xdr:col><xdr:colOff>0</xdr:colOff><xdr:row>4</xdr:row>
<xdr:rowOff>0</xdr:rowOff></xdr:to><xdr:sp macro="" textlink=""><xdr:nvSpPr><xdr:cNvPr id="9" name="Note"/>
<xdr:cNvSpPr/></xdr:nvSpPr><xdr:spPr><a:prstGeom xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"
prst="rect"><a:avLst/></a:prstGeom></xdr:spPr></xdr:sp><xdr:clientData/></xdr:twoCellAnchor>"""


def add_picture(path: Path) -> None:
    """A sheet of the user's own with a picture on it."""
    book = openpyxl.load_workbook(path)
    Picture.new("RGB", (8, 8), "red").save(path.with_name("red.png"))
    book.create_sheet("mine").add_image(Image(path.with_name("red.png")), "A1")
    book.save(path)


def add_part(path: Path, name: str, text: str) -> None:
    """Another part in the file, or a shape in its drawing, as no library here writes it."""
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    if name.startswith("xl/drawings/"):
        content = parts[name].decode()
        # openpyxl leaves the prefix out, which spreadsheet programs write.
        namespace = "http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing"
        end = content.rindex("</")
        shape = SHAPE.replace("<xdr:twoCellAnchor>", f'<xdr:twoCellAnchor xmlns:xdr="{namespace}">')
        text = content[:end] + shape + content[end:]
    parts[name] = text.encode()
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)


@pytest.mark.parametrize(
    ("part", "kind"),
    [("xl/drawings/drawing1.xml", "shapes"), ("xl/threadedComments/threadedComment1.xml", "threads of comments")],
)
def test_what_would_be_lost_is_kept_in_a_copy(part, kind, tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path)
    update_workbook(path)
    add_picture(path)
    add_part(path, part, "<x/>")
    assert unreadable_parts(path) == [kind]
    before = path.read_bytes()
    append_run(path)
    with pytest.warns(UserWarning, match=rf"has {kind}, which are lost .* kept as .*results\.before\.xlsx"):
        assert update_workbook(path)
    assert (tmp_path / "results.before.xlsx").read_bytes() == before
    # Once: there is nothing more to lose.
    append_run(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert update_workbook(path)
    assert not (tmp_path / "results.before2.xlsx").exists()


def test_pictures_stay_and_nothing_is_said(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path)
    update_workbook(path)
    add_picture(path)
    append_run(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert update_workbook(path)
    assert len(openpyxl.load_workbook(path)["mine"]._images) == 1
    assert [file.name for file in tmp_path.glob("*.xlsx")] == ["results.xlsx"]


def test_a_file_that_is_no_archive_has_no_parts(tmp_path):
    (tmp_path / "results.xlsx").write_bytes(b"nothing")
    assert unreadable_parts(tmp_path / "results.xlsx") == unreadable_parts(tmp_path / "none.xlsx") == []

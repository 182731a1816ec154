"""What of a user's sheets openpyxl does not read, so that it would be lost when a workbook is written again."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

#: Shapes, lines and groups of them in a drawing; pictures and charts are kept.
_SHAPES = re.compile(rb"<xdr:(sp|cxnSp|grpSp)[ >]")
#: The beginning of a part's name → what it is.
_PARTS = {
    "xl/activeX/": "controls",
    "xl/connections.xml": "connections",
    "xl/ctrlProps/": "controls",
    "xl/diagrams/": "diagrams",
    "xl/embeddings/": "embedded objects",
    "xl/queryTables/": "connections",
    "xl/slicers/": "slicers",
    "xl/threadedComments/": "threads of comments",
    "xl/timelines/": "timelines",
    "xl/vbaProject.bin": "macros",
}


def unreadable_parts(workbook: Path) -> list[str]:
    """What openpyxl leaves out of a workbook, in words; empty where it keeps everything, or cannot read it."""
    kinds = set()
    try:
        with zipfile.ZipFile(workbook) as archive:
            for name in archive.namelist():
                kinds.update(kind for beginning, kind in _PARTS.items() if name.startswith(beginning))
                if name.startswith("xl/drawings/drawing") and _SHAPES.search(archive.read(name)):
                    kinds.add("shapes")
    except (OSError, zipfile.BadZipFile):
        return []
    return sorted(kinds)

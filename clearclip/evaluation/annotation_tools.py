"""Which annotation tool has probably written a dataset's folder, and what its masks need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

_PAGE = "docs/your_own_data.md, Annotation tools"
#: So many files of a folder are looked at.
_LOOKED_AT = 200


class ToolSigns(NamedTuple):
    """By what a tool's export is known, and what to do with it."""

    tool: str
    is_there: Callable[[Path], bool]
    remedy: str


def likely_tool(root: Path) -> str | None:
    """What a dataset's folder looks like an export of, with a remedy, as a sentence; None for others.

    Args:
        root: the dataset's own folder.
    """
    if not root.is_dir():
        return None
    # Formats that others build on come later in the list, so that the first match is the most special one.
    for signs in _TOOLS:
        if signs.is_there(root):
            return f"{root} looks like an export of {signs.tool}: {signs.remedy} ({_PAGE})"
    return None


def _names(folder: Path, pattern: str) -> list[str]:
    return [path.name for path in islice(folder.glob(pattern), _LOOKED_AT)]


def _starts_with(path: Path, text: str) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4096).startswith(text.encode())
    except OSError:
        return False


def _json_heads(root: Path) -> Iterator[bytes]:
    """The first bytes of some JSON files in the folder and in those below it."""
    for pattern in ("*.json", "*/*.json"):
        for path in islice(root.glob(pattern), 5):
            try:
                with path.open("rb") as file:
                    yield file.read(1 << 16)
            except OSError:
                continue


def _is_camvid(root: Path) -> bool:
    return (root / "label_colors.txt").is_file() and bool(_names(root, "*annot"))


def _is_cityscapes(root: Path) -> bool:
    return (root / "label_colors.txt").is_file() and (root / "gtFine").is_dir()


def _is_voc(root: Path) -> bool:
    return _starts_with(root / "labelmap.txt", "# label:color_rgb")


def _is_panoptic(root: Path) -> bool:
    return bool(_names(root, "annotations/panoptic_*.json") or _names(root, "panoptic_*.json"))


def _is_coco(root: Path) -> bool:
    return any(b'"annotations"' in head and b'"categories"' in head for head in _json_heads(root))


def _is_labelme(root: Path) -> bool:
    exported = (root / "class_names.txt").is_file() and bool(_names(root, "SegmentationClass*"))
    return exported or any(b'"shapes"' in head and b'"imagePath"' in head for head in _json_heads(root))


def _is_label_studio(root: Path) -> bool:
    name = "task-*-annotation-*-by-*-tag-*.png"
    return bool(_names(root, name) or _names(root, f"*/{name}"))


def _is_fiftyone(root: Path) -> bool:
    return (root / "data").is_dir() and (root / "labels").is_dir() and not (root / "images").is_dir()


_TOOLS = (
    ToolSigns(
        "Datumaro or CVAT (CamVid)",
        _is_camvid,
        "its lists name image and mask, so leave ann_file out; its masks are colours, so use MappedDataset",
    ),
    ToolSigns(
        "Datumaro (Cityscapes)",
        _is_cityscapes,
        "its labelIds are places in label_colors.txt, not those of Cityscapes; use BaseSegDataset with your classes",
    ),
    ToolSigns(
        "Datumaro or CVAT (PASCAL VOC)",
        _is_voc,
        "its masks are colours, so use MappedDataset with the colours of labelmap.txt",
    ),
    ToolSigns(
        "COCO panoptic", _is_panoptic, "its masks number segments, not classes; draw masks of classes from its JSON"
    ),
    ToolSigns("Label Studio (brush)", _is_label_studio, "it writes a mask for each label; put them together"),
    ToolSigns("labelme", _is_labelme, "draw masks from its JSON with labelme's own function"),
    ToolSigns("COCO (polygons)", _is_coco, "draw masks from its JSON with pycocotools"),
    ToolSigns("FiftyOne", _is_fiftyone, 'use data_prefix=dict(img_path="data", seg_map_path="labels")'),
)

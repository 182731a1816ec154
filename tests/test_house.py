"""The floors of the package: no module imports from a floor above its own."""

from __future__ import annotations

import ast
from pathlib import Path

import clearclip

PACKAGE = Path(clearclip.__file__).resolve().parent
#: From the top down; what stands on one floor may import from it and from those below.
FLOORS = (
    "commands",
    "analysis",
    "evaluation",
    "results",
    "model",
    "result",
    "visualize",
    "backbones",
    "text",
    "settings",
    "weights methods windows",
    "miniature",
    "utils version",
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names.split()}


def imports(path: Path) -> set[str]:
    """The rooms that a file imports from, those that it imports late among them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{one.name}" for one in node.names}
    return {name.split(".")[1] for name in found if name.startswith("clearclip.")} & FLOOR.keys()


def test_no_arrow_goes_up():
    arrows = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            arrows |= {(path.relative_to(PACKAGE).as_posix(), room, other) for other in imports(path)}
    assert {room for _, room, _ in arrows} | {"version"} == FLOOR.keys()
    assert not {arrow for arrow in arrows if FLOOR[arrow[2]] < FLOOR[arrow[1]]}


def test_results_know_neither_configs_nor_models():
    """Records become tables without PyTorch and MMSegmentation."""
    heavy = {"torch", "mmengine", "mmseg", "mmcv", "open_clip", "clearclip.methods", "clearclip.settings"}
    for path in (PACKAGE / "results").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not {name for name in heavy if f"import {name}" in text or f"from {name}" in text}, path.name

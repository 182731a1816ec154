"""The floors of the package: no module imports from a floor above its own."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import clearclip

PACKAGE = Path(clearclip.__file__).resolve().parent
#: From the top down; what stands on one floor may import from it and from those below.
FLOORS = (
    "commands __main__",
    "analysis",
    "evaluation",
    "results",
    "map_segmentation",
    "onnx_export request_batches",
    "model",
    "segmented_images",
    "segmentation",
    "formats",
    "visualize",
    "inference",
    "window_encoder",
    "backbones",
    "text",
    "model_settings",
    "weights model_folders dense_models methods windows",
    "checkpoint_names",
    "miniature",
    "rasters utils version",
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names.split()}


MODULES = {
    ".".join(("clearclip", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, those that it imports late among them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{one.name}" for one in node.names}
            found |= names & MODULES.keys() or {node.module}
    return found & MODULES.keys()


ARROWS = {name: imports(path) - {name} for name, path in MODULES.items()}


def test_no_arrow_goes_up():
    rooms = {(name, name.split(".")[1], other.split(".")[1]) for name in ARROWS for other in ARROWS[name]
             if "." in name and "." in other}  # fmt: skip
    assert {name.split(".")[1] for name in MODULES if "." in name} == FLOOR.keys()
    assert not {arrow for arrow in rooms if FLOOR[arrow[2]] < FLOOR[arrow[1]]}


def test_no_arrow_goes_in_a_circle():
    list(graphlib.TopologicalSorter(ARROWS).static_order())  # raises CycleError, which names the circle


def test_results_know_neither_configs_nor_models():
    """Records become tables without PyTorch and MMSegmentation."""
    heavy = {"torch", "mmengine", "mmseg", "mmcv", "open_clip", "clearclip.methods", "clearclip.model_settings"}
    for path in (PACKAGE / "results").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not {name for name in heavy if f"import {name}" in text or f"from {name}" in text}, path.name

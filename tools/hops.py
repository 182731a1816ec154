"""Print the calls from an entry point to softmax(q qᵀ) of the last block: ``python tools/hops.py [segment | eval]``.

Each line is a function of this package that a reader passes through; those of installed packages between them are left
out. The miniature segments one scene, or is evaluated on it as eval.py does once its arguments have been read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LAST_BLOCK = str(ROOT / "clearclip" / "methods" / "last_block.py")


def stack_of(frame: FrameType | None) -> list[CodeType]:
    """The functions that are being called, outermost first."""
    functions = []
    while frame is not None:
        functions.append(frame.f_code)
        frame = frame.f_back
    return functions[::-1]


class AttentionStack:
    """A profiler for ``sys.setprofile`` that keeps the stack of the last block's first attention."""

    def __init__(self) -> None:
        self.functions: list[CodeType] = []

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call" or getattr(function, "__name__", "") != "scaled_dot_product_attention":
            return
        # The trunk's blocks compute attention, too, but not by the file of the methods.
        if frame.f_code.co_filename == LAST_BLOCK:
            self.functions = stack_of(frame)
            sys.setprofile(None)


def segment() -> None:
    """Segment one scene of the miniature."""
    from clearclip import ClearCLIP
    from clearclip.miniature import BENCHMARK, CLASSES

    model = ClearCLIP.from_pretrained("miniature", device="cpu")
    scene = sorted((BENCHMARK / "images" / "val").glob("*.png"))[0]
    model.segment(scene, CLASSES)


def evaluate() -> None:
    """Evaluate the miniature on one scene."""
    from clearclip.commands.eval import run_eval
    from clearclip.commands.eval_parser import eval_parser

    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--config", str(ROOT / "config" / "cfg_miniature.py"), "--limit", "1", "--workers", "0"]
        arguments += ["--device", "cpu", "--results", f"{folder}/results.xlsx", "--workdir", f"{folder}/work"]
        run_eval(eval_parser().parse_args(arguments))


def calls_to_attention(entry: Callable[[], None]) -> list[CodeType]:
    """The functions of the package from an entry point to the last block's attention, outermost first."""
    profiler = AttentionStack()
    sys.setprofile(profiler)
    try:
        entry()
    finally:
        sys.setprofile(None)
    package = str(ROOT / "clearclip")
    return [function for function in profiler.functions if function.co_filename.startswith(package)]


def main() -> None:
    """Print the calls of one entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", nargs="?", choices=("segment", "eval"), default="segment")
    entry = {"segment": segment, "eval": evaluate}[parser.parse_args().entry]
    functions = calls_to_attention(entry)
    for number, function in enumerate(functions):
        path = Path(function.co_filename).relative_to(ROOT)
        # Python 3.10 knows the names of functions without those of their classes.
        name = getattr(function, "co_qualname", function.co_name)
        print(f"{number:3}  {name:45} {path}:{function.co_firstlineno}")
    print(f"{len(functions) - 1} calls after the first, and then the softmax")


if __name__ == "__main__":
    main()

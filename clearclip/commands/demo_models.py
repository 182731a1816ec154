"""Which model and which methods the options mean. Names, checks and help come from ``ModelSettings``."""

from __future__ import annotations

import argparse
import runpy
import traceback
from contextlib import suppress
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np

from clearclip.methods import METHODS, Method, build_method
from clearclip.methods.family import FAMILY
from clearclip.miniature import CLASSES, PALETTE
from clearclip.model import ClearCLIP
from clearclip.result import Segmentation
from clearclip.settings import ModelSettings
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError

#: The options of ModelSettings that the command line has, too; those that name the model first.
NAMING = ("clip_type", "vit_type", "model_name", "pretrained")
OPTIONS = (*NAMING, "quick_gelu", "precision", "device", "cached", "post", "prob_thd", "slide_crop", "slide_stride")


def add_model_options(group: argparse._ArgumentGroup) -> None:
    """Add options of :class:`ModelSettings` to a command line. Those not given are not in its namespace."""
    hints = get_type_hints(ModelSettings)
    for name in OPTIONS:
        kind = next((kind for kind in (bool, int, float) if kind in (hints[name], *get_args(hints[name]))), str)
        typed = {"type": kind, "metavar": {int: "N", float: "X", str: "NAME"}.get(kind)}
        flags = [f"--{name.replace('_', '-')}", *(["--model"] if name == "model_name" else [])]
        more = {"action": argparse.BooleanOptionalAction} if kind is bool else typed
        text = ModelSettings.help(name).replace("%", "%%")
        group.add_argument(*flags, dest=name, default=argparse.SUPPRESS, help=text, **more)


def read_options(args: argparse.Namespace) -> tuple[ModelSettings, bool]:
    """The settings that were given, and whether they mean the miniature: where neither model nor image is named."""
    options = {name: value for name, value in vars(args).items() if name in OPTIONS}
    if not args.images and not options.keys() & set(NAMING):
        options["model_name"] = "miniature"
    method = build_method(args.model_type)
    options["method"] = method.keeping(False) if args.ignore_residual else method
    bundled = options.get("model_name") == "miniature" or options.get("clip_type") == "Miniature"
    return ModelSettings.from_options(options), bundled


def import_file(path: Path) -> None:
    """Run a user's Python file, whose methods register themselves; a UserError where it fails names the line."""
    if not path.is_file():
        raise UserError(f"--import {path}: there is no such file; check its name")
    try:
        runpy.run_path(str(path), run_name=path.stem)
    except Exception as error:  # anything, it is the user's code
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" in line {lines[-1]}" if lines else ""
        raise UserError(f"--import {path}: {type(error).__name__}{where}: {error}") from error


def all_methods() -> list[Method]:
    """All registered methods and their "+ ClearCLIP" variants, each once."""
    found: dict[str, Method] = {}
    for name in (*FAMILY, *METHODS):
        with suppress(UserError):  # a method with an option that has no default
            for method in (build_method(name), build_method(f"{name} + ClearCLIP")):
                found.setdefault(method.label, method)
    return list(found.values())


def segment(model: ClearCLIP, image: np.ndarray, classes: ClassWords, methods: list[Method]) -> dict[str, Segmentation]:
    """One result for each method, by its label; the miniature's classes have their own colours."""
    results = model.compare(image, classes, list({method.label: method for method in methods}.values()))
    for result in results.values() if classes.names == list(CLASSES) else ():
        result.colours = PALETTE
    return results

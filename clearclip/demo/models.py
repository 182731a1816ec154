"""Which model and which methods the options mean. Names, checks and help come from ``ModelSettings``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import traceback
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from clearclip.errors import UserError
from clearclip.methods import METHODS, Method, build_method
from clearclip.methods.family import FAMILY, for_miniature
from clearclip.miniature import CLASSES, PALETTE
from clearclip.model import ClearCLIP
from clearclip.segmentation import Segmentation
from clearclip.settings import ModelSettings
from clearclip.text import ClassWords

#: The options of ModelSettings that the command line has, too; those that name the model first.
NAMING = ("clip_type", "vit_type", "model_name", "pretrained")
OPTIONS = (*NAMING, "quick_gelu", "precision", "device", "cached", "post", "prob_thd", "slide_crop", "slide_stride")


def add_model_options(group: argparse._ArgumentGroup, names: Iterable[str] = OPTIONS) -> None:
    """Add options of :class:`ModelSettings` to a command line. Those not given are not in its namespace."""
    hints = get_type_hints(ModelSettings)
    for name in names:
        kind = next((kind for kind in (bool, int, float) if kind in (hints[name], *get_args(hints[name]))), str)
        typed = {"type": kind, "metavar": {int: "N", float: "X", str: "NAME"}.get(kind)}
        flags = [f"--{name.replace('_', '-')}", *(["--model"] if name == "model_name" else [])]
        more = {"action": argparse.BooleanOptionalAction} if kind is bool else typed
        text = ModelSettings.help(name).replace("%", "%%")
        group.add_argument(*flags, dest=name, default=argparse.SUPPRESS, help=text, **more)


def read_options(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """The options of :class:`ModelSettings` that were given, and whether they mean the miniature.

    It is the model where neither model nor image is named. ``--model-type`` and ``--ignore-residual`` are "method".
    """
    options = {name: value for name, value in vars(args).items() if name in OPTIONS}
    if not args.images and not options.keys() & set(NAMING):
        options["model_name"] = "miniature"
    bundled = options.get("model_name") == "miniature" or options.get("clip_type") == "Miniature"
    method = build_method(args.model_type)
    method = method.keeping(False) if args.ignore_residual else method
    options["method"] = for_miniature(method) if bundled else method
    return options, bundled


def import_file(path: Path) -> None:
    """Import a user's Python file, whose methods register themselves; a UserError where it fails names the line."""
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"--import {path}: there is no such Python file; check its name")
    spec = importlib.util.spec_from_file_location(f"user_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # anything, it is the user's code
        line = getattr(error, "lineno", None) or traceback.extract_tb(error.__traceback__)[-1].lineno
        raise UserError(f"--import {path}: {type(error).__name__} in line {line}: {error}") from error


def all_methods() -> list[Method]:
    """All registered methods and their "+ ClearCLIP" variants, each once."""
    found: dict[str, Method] = {}
    for name in (*FAMILY, *METHODS):
        with suppress(UserError):  # a method with an option that has no default
            for method in (build_method(name), build_method(f"{name} + ClearCLIP")):
                found.setdefault(method.label, method)
    return list(found.values())


def without_deeper(methods: Iterable[Method], model: ClearCLIP) -> list[Method]:
    """The methods that the model has enough blocks for; a warning names the others."""
    possible = []
    for method in methods:
        try:
            model.image_encoder.check(method)
            possible.append(method)
        except UserError as error:
            warnings.warn(f"{method.label} is left out of the comparison: {error}", stacklevel=2)
    return possible


def segment(
    model: ClearCLIP, image: np.ndarray, classes: ClassWords, methods: Iterable[Method], prob_thd: float | None = None
) -> dict[str, Segmentation]:
    """One result for each method, by its label; the miniature's classes have their own colours."""
    results = model.segment(image, classes, prob_thd, list({method.label: method for method in methods}.values()))
    for result in results.values() if classes.names == list(CLASSES) else ():
        result.colours = PALETTE
    return results

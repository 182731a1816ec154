"""What ``analyze.py`` does once its arguments have been read."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clearclip.analysis import figures
from clearclip.analysis.inputs import AnalysisImages
from clearclip.analysis.statistics import collect
from clearclip.analysis.variants import VARIANTS, score_tables, summary
from clearclip.commands.analyze_parser import analyze_parser
from clearclip.commands.image_search import find_images
from clearclip.commands.model_arguments import warn_of_photographs
from clearclip.commands.model_flags import model_options
from clearclip.commands.typed_words import check_stray_words, read_words
from clearclip.evaluation.config import CONFIGS
from clearclip.methods import build_method
from clearclip.model import ClearCLIP
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, write_bytes, write_text_atomically

#: Where the journal of the evaluation goes, below the folder of the figures.
WORK_DIRS = "work_dirs"


def analyze_command(arguments: Sequence[str] | None = None) -> None:
    """Analyse as a command line says; see :func:`run_analyze`."""
    run_analyze(analyze_parser().parse_args(arguments))


def run_analyze(args: Namespace) -> None:
    """Analyse as the arguments say; a UserError for anything that the user can fix."""
    _check_inputs(args)
    check_stray_words(args)
    methods = [build_method(name) for name in args.methods]
    images = _read_inputs(args)
    settings = images.settings(**model_options(args))
    warn_of_photographs(settings, map(Path, images.paths))
    model = ClearCLIP.from_settings(settings)
    tables: dict[str, pd.DataFrame] = {}
    if "statistics" in args.only:
        tables |= collect(model.image_encoder, images.squares(model))
    # Labels need words, which towers such as DINO have no text side for.
    if model.text_encoder is None:
        print(f"{model.label}: without a text side there are no mIoU and no maps", file=sys.stderr)
    else:
        if "scores" in args.only and images.cfg is not None:
            scored_methods = {method.label: method for method in (*VARIANTS, *methods)}
            scores = images.scores(model, list(scored_methods.values()), args.out / WORK_DIRS)
            tables |= score_tables(scores, methods)
        if "maps" in args.only and images.classes is not None:
            images.draw_maps(model, methods, args.out / "maps.png")
    _write_tables(tables, model.label, len(images.paths), args.out)


def _read_inputs(args: Namespace) -> AnalysisImages:
    """The images that are named, or those of a benchmark."""
    if not args.images:
        config = args.config or CONFIGS / "cfg_miniature.py"
        return AnalysisImages.of_benchmark(config, args.cfg_options, args.data_root, args.limit)
    classes = None
    if args.classes:
        classes = read_words(args.classes)
    return AnalysisImages(find_images(args.images)[: args.limit], classes)


def _write_tables(tables: dict[str, pd.DataFrame], label: str, image_count: int, folder: Path) -> None:
    """Write tables as CSV and as figures, and print what they show."""
    for name, table in tables.items():
        # A column with the model's name, so that tables of several models can be joined.
        labelled = pd.concat({label: table}, names=["model"]).reset_index("model")
        write_bytes(folder / f"{name}.csv", labelled.to_csv(index=False, float_format="%.6g").encode())
    if tables:
        noun = "image" if image_count == 1 else "images"
        figures.draw(folder / "analysis.png", tables, f"{label} · {image_count} {noun}")
    report = f"{label}\n{summary(tables)}\n"
    write_text_atomically(folder / "summary.txt", report)
    print(f"{report}\nfigures (PNG), their numbers (CSV), and this text as summary.txt: {folder}")
    work_dir = folder / WORK_DIRS
    if work_dir.is_dir():
        print(f"{work_dir} is what an interrupted run goes on from; it may be deleted")


def _check_inputs(args: Namespace) -> None:
    """Raise a UserError where inputs contradict each other, or lack what a step needs."""
    for is_wrong, message in (
        (args.limit is not None and args.limit < 1, "--limit must be at least 1"),
        (args.images and args.config, "images and --config are two inputs; give one of them"),
        (args.images and args.only == ["scores"], "mIoU needs masks; give a benchmark's --config"),
        (args.images and args.only == ["maps"] and not args.classes, 'maps need words: --classes "sky, tree, grass"'),
        (args.classes and not args.images, "--classes is for images; a benchmark has a names file (model.name_path)"),
    ):
        if is_wrong:
            raise UserError(message)
    check_folder("--out", args.out)

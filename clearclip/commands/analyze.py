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


def analyze_command(arguments: Sequence[str] | None = None) -> None:
    """Analyse as a command line says; see :func:`run_analyze`."""
    run_analyze(analyze_parser().parse_args(arguments))


def run_analyze(args: Namespace) -> None:
    """Analyse as the arguments say; a UserError for anything that the user can fix."""
    _check(args)
    check_stray_words(args)
    methods = [build_method(name) for name in args.methods]
    if args.images:
        images = AnalysisImages(
            find_images(args.images)[: args.limit], read_words(args.classes) if args.classes else None
        )
    else:
        config = args.config or CONFIGS / "cfg_miniature.py"
        images = AnalysisImages.of_benchmark(config, args.cfg_options, args.data_root, args.limit)
    settings = images.settings(**model_options(args))
    warn_of_photographs(settings, map(Path, images.paths))
    model = ClearCLIP.from_settings(settings)
    tables = collect(model.image_encoder, images.squares(model)) if "statistics" in args.only else {}
    if model.text_encoder is None:
        print(f"{model.label}: without a text side there are no mIoU and no maps", file=sys.stderr)
    elif "scores" in args.only and images.cfg is not None:
        every = {method.label: method for method in (*VARIANTS, *methods)}
        tables |= score_tables(images.scores(model, list(every.values()), args.out / "work_dirs"), methods)
    if model.text_encoder is not None and "maps" in args.only and images.classes is not None:
        images.draw_maps(model, methods, args.out / "maps.png")
    for name, table in tables.items():
        named = pd.concat({model.label: table}, names=["model"]).reset_index("model")  # so that tables can be joined
        write_bytes(args.out / f"{name}.csv", named.to_csv(index=False, float_format="%.6g").encode())
    if tables:
        count = f"{len(images.paths)} image{'s' * (len(images.paths) != 1)}"
        figures.draw(args.out / "analysis.png", tables, f"{model.label} · {count}")
    report = f"{model.label}\n{summary(tables)}\n"
    write_text_atomically(args.out / "summary.txt", report)
    print(f"{report}\nfigures (PNG), their numbers (CSV), and this text as summary.txt: {args.out}")


def _check(args: Namespace) -> None:
    for wrong, message in (
        (args.limit is not None and args.limit < 1, "--limit must be at least 1"),
        (args.images and args.config, "images and --config are two inputs; give one of them"),
        (args.images and args.only == ["scores"], "mIoU needs masks; give a benchmark's --config"),
        (args.images and args.only == ["maps"] and not args.classes, 'maps need words: --classes "sky, tree, grass"'),
        (args.classes and not args.images, "--classes is for images; a benchmark has a names file (model.name_path)"),
    ):
        if wrong:
            raise UserError(message)
    check_folder("--out", args.out)

"""The command line of ``analyze.py``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clearclip.analysis import figures
from clearclip.analysis.inputs import Images
from clearclip.analysis.statistics import collect
from clearclip.analysis.variants import VARIANTS, score_tables, summary
from clearclip.commands.command_line import CommandParser, ImportFile
from clearclip.commands.model_arguments import (
    WORDS,
    add_model_options,
    find_images,
    model_options,
    read_words,
    warn_of_photographs,
)
from clearclip.evaluation.config import CONFIGS, Options
from clearclip.methods import METHODS, build_method
from clearclip.model import ClearCLIP
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, user_path, write_bytes, write_text_atomically

STEPS = ("statistics", "scores", "maps")


def make_parser() -> CommandParser:
    """The options of ``analyze.py``."""
    parser = CommandParser(
        description="Draw the paper's analysis: statistics of X_res, X_attn and X_sum, and what they do to mIoU. "
        "Without arguments: the bundled miniature, offline.",
        epilog="example: python analyze.py photos/ --clip-type CLIP --vit-type ViT-L/14",
    )
    add = parser.add_argument
    add("images", nargs="*", help="image files or folders, in place of a benchmark; without masks no mIoU")
    add("--config", help="benchmark, such as config/cfg_voc20.py (default: the miniature)")
    add("--data-root", help="the dataset's folder, or the folder that holds it under its usual name")
    add("--cfg-options", nargs="+", action=Options, default={}, metavar="KEY=VALUE", help="override the config")
    add("--methods", nargs="+", default=[], metavar="NAME", help=f"more methods to compare: {', '.join(METHODS)}")
    add("--import", action=ImportFile)
    add("--classes", metavar="WORDS", help=f"of images: {WORDS}")
    add("--only", nargs="+", choices=STEPS, default=STEPS, help="steps to do (default: all)")
    add("--limit", type=int, metavar="N", help="only the first N images")
    add("--out", type=user_path, default=Path("outputs/analysis"), help="folder (default %(default)s)")
    add_model_options(parser.add_argument_group("model (default: the config's; of images: CLIP ViT-B/16)"))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Analyse as the command line says; a UserError for anything that the user can fix."""
    args = make_parser().parse_args(arguments)
    _check(args)
    methods = [build_method(name) for name in args.methods]
    if args.images:
        images = Images(find_images(args.images)[: args.limit], read_words(args.classes) if args.classes else None)
    else:
        config = args.config or CONFIGS / "cfg_miniature.py"
        images = Images.of_benchmark(config, args.cfg_options, args.data_root, args.limit)
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

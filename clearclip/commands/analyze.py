"""The command line of ``analyze.py``."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clearclip.analysis import figures
from clearclip.analysis.inputs import MODELS, Images, parse_model
from clearclip.analysis.maps import draw_maps
from clearclip.analysis.statistics import collect
from clearclip.analysis.tables import VARIANTS, score_tables, summary
from clearclip.commands.console import CommandParser
from clearclip.commands.demo_inputs import find_images, read_words
from clearclip.evaluation.config import Options
from clearclip.methods import METHODS, Method, build_method
from clearclip.model import ClearCLIP
from clearclip.settings import ModelSettings
from clearclip.utils.devices import PRECISIONS
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, write_bytes, write_text_atomically

STEPS = ("statistics", "scores", "maps")
Tables = dict[str, pd.DataFrame]


def make_parser() -> CommandParser:
    """The options of ``analyze.py``."""
    parser = CommandParser(
        description="Draw the paper's analysis: statistics of X_res, X_attn and X_sum, and what they do to mIoU. "
        "Without arguments: the bundled miniature, offline.",
        epilog="example: python analyze.py --model CLIP:ViT-B/16 --model CLIP:ViT-L/14 --model DINO photos/",
    )
    add = parser.add_argument
    add("images", nargs="*", help="image files or folders, in place of a benchmark; without masks no mIoU")
    add("--model", action="append", default=[], metavar="NAME", help=f"may be repeated. {MODELS}")
    add("--methods", nargs="+", default=[], metavar="NAME", help=f"more methods to compare: {', '.join(METHODS)}")
    add("--config", help="benchmark, such as config/cfg_voc20.py (default: the miniature)")
    add("--data-root", help="the dataset's folder, or the folder that holds it under its usual name")
    add("--cfg-options", nargs="+", action=Options, default={}, metavar="KEY=VALUE", help="override the config")
    add("--classes", metavar="WORDS", help='what to look for in images: "sky, tree, grass"')
    add("--only", nargs="+", choices=STEPS, default=STEPS, help="steps to do (default: all)")
    add("--limit", type=int, metavar="N", help="only the first N images")
    add("--device", help=ModelSettings.help("device"))
    add("--precision", choices=PRECISIONS, default="auto", help=ModelSettings.help("precision"))
    add("--out", type=Path, default=Path("outputs/analysis"), help="folder (default %(default)s)")
    return parser


def main(root: Path, arguments: Sequence[str] | None = None) -> None:
    """Analyse as the command line says.

    Args:
        root: the folder that has ``config/``.
        arguments: default those of the command line.

    Raises:
        UserError: anything that the user can fix.
    """
    args = make_parser().parse_args(arguments)
    _check(args)
    methods = [build_method(name) for name in args.methods]
    if args.images:
        images = Images(find_images(args.images)[: args.limit], read_words(args.classes) if args.classes else None)
    else:
        config = args.config or root / "config" / "cfg_miniature.py"
        images = Images.of_benchmark(config, args.cfg_options, args.data_root, args.limit)
    named = [parse_model(name) for name in args.model] or [{}]
    models = [images.settings(**options, device=args.device, precision=args.precision) for options in named]
    found: dict[str, Tables] = {}
    for settings in models:
        model = ClearCLIP.from_settings(settings)
        found[model.weights.label] = _analyze(model, images, methods, args.only, args.out)
        # After every model, so that a long run that is cut short leaves what it has found.
        report = _write(found, images, args.out)
    print(f"{report}\nfigures (PNG, PDF) with their numbers (CSV), and this text as summary.txt: {args.out}")


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


def _analyze(model: ClearCLIP, images: Images, methods: Sequence[Method], steps: Sequence[str], out: Path) -> Tables:
    """All tables of a model; its page of maps is written at once."""
    name = _file_name(model.weights.label)
    tables = collect(model.image_encoder, images.squares(model)) if "statistics" in steps else {}
    if model.text_encoder is None:
        print(f"{name}: without a text side there are no mIoU and no maps", file=sys.stderr)
        return tables
    if "scores" in steps and images.cfg is not None:
        every = {method.label: method for method in (*VARIANTS, *methods)}
        tables |= score_tables(images.scores(model, list(every.values()), out / "work_dirs" / name), methods)
    if "maps" in steps and images.classes is not None:
        draw_maps(model, images, methods, out / f"maps_{name}.png")
    return tables


def _write(found: dict[str, Tables], images: Images, out: Path) -> str:
    """A figure and a CSV of each kind for all models, an overview of each, and the summary, which is returned."""
    for name in figures.FIGURES:
        parts = {label: tables[name] for label, tables in found.items() if name in tables}
        if parts:
            figures.draw(out / name, [(label, name, table) for label, table in parts.items()])
            table = pd.concat(parts, names=["model"]).reset_index("model")
            write_bytes(out / f"{name}.csv", table.to_csv(index=False, float_format="%.6g").encode())
    texts = []
    for label, tables in found.items():
        panels = [(title, name, tables[name]) for name, (title, *_) in figures.FIGURES.items() if name in tables]
        if panels:
            figures.draw(out / f"overview_{_file_name(label)}", panels[:6], f"{label}, {len(images.paths)} images")
        texts.append(f"{label}\n{summary(tables)}\n")
    write_text_atomically(out / "summary.txt", "\n".join(texts))
    return "\n".join(texts)


def _file_name(label: str) -> str:
    return re.sub(r"\W+", "-", label).strip("-")

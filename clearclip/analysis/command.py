"""The command line of ``analyze.py``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clearclip.analysis import figures
from clearclip.analysis.inputs import Benchmark, Images
from clearclip.analysis.maps import draw_maps
from clearclip.analysis.models import HELP, label_of, parse_model
from clearclip.analysis.statistics import collect
from clearclip.analysis.tables import VARIANTS, score_tables, statistics_tables, summary
from clearclip.demo.inputs import find_images, read_words
from clearclip.devices import PRECISIONS
from clearclip.errors import CommandParser, UserError
from clearclip.files import check_folder, write_text_atomically
from clearclip.methods import METHODS, Method, build_method
from clearclip.methods.family import for_miniature
from clearclip.mmseg.config import Options
from clearclip.model import ClearCLIP
from clearclip.pictures import write_bytes
from clearclip.settings import ModelSettings

STEPS = ("statistics", "scores", "maps")
Tables = dict[str, pd.DataFrame]


def make_parser() -> CommandParser:
    """The options of ``analyze.py``."""
    parser = CommandParser(
        prog="analyze.py",
        description="Draw the paper's analysis: statistics of X_res, X_attn and X_sum, and what they do to mIoU. "
        "Without arguments: the bundled miniature, offline.",
        epilog="example: python analyze.py --model CLIP:ViT-B/16 --model CLIP:ViT-L/14 --model DINO photos/",
    )
    add = parser.add_argument
    add("images", nargs="*", help="image files or folders, in place of a benchmark; without masks no mIoU")
    add("--model", action="append", default=[], metavar="NAME", help=f"may be repeated. {HELP}")
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


def main(root: Path, arguments: Sequence[str] | None = None) -> int:
    """Analyse as the command line says.

    Args:
        root: the folder that has ``config/``.
        arguments: default those of the command line.

    Returns:
        0, or 1 where one of several models could not be loaded or used.

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
        images = Benchmark(config, args.cfg_options, args.data_root, args.limit)
    named = [parse_model(name) for name in args.model] or [{}]
    models = [images.settings(**options, device=args.device, precision=args.precision) for options in named]
    models = {label_of(settings): settings for settings in models}
    found: dict[str, Tables] = {}
    for label, settings in models.items():
        try:
            found[label] = _analyze(settings, images, methods, args.only, args.out / _file_name(label))
        except UserError as error:
            if len(models) == 1:
                raise
            print(f"error: {label}: {error}", file=sys.stderr)
            continue
        # After every model, so that a long run that is killed leaves what it has found.
        report = _write(found, images, args.out)
    if not found:
        raise UserError("none of the models could be analysed; see the reasons above")
    print(f"{report}\nfigures (PNG, PDF) with their numbers (CSV), and this text as summary.txt: {args.out}")
    return 0 if len(found) == len(models) else 1


def _check(args: Namespace) -> None:
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be at least 1, not {args.limit}")
    if args.images and args.config:
        raise UserError("images and --config are two inputs; give one of them")
    if args.images and args.only == ["scores"]:
        raise UserError("mIoU needs masks, which images alone do not have; give a benchmark's --config")
    if args.images and args.only == ["maps"] and not args.classes:
        raise UserError('maps need words; name what to look for, such as --classes "sky, tree, grass"')
    if args.classes and not args.images:
        raise UserError("--classes is for images; a benchmark's words are in its names file (model.name_path)")
    check_folder("--out", args.out)


def _analyze(
    settings: ModelSettings, images: Images, methods: Sequence[Method], steps: Sequence[str], path: Path
) -> Tables:
    """All tables of a model; its page of maps is written at once."""
    model = ClearCLIP.from_settings(settings)
    methods = [for_miniature(method) for method in methods] if settings.is_miniature else methods
    tables = {}
    if "statistics" in steps:
        tables = statistics_tables(collect(model.image_encoder, images.squares(model)))
    if model.text_encoder is None:
        print(f"{path.name}: without a text side there are no mIoU and no maps", file=sys.stderr)
        return tables
    if "scores" in steps:
        every = {method.label: method for method in (*VARIANTS, *methods)}
        scores = images.scores(model, list(every.values()), path.parent / "work_dirs" / path.name)
        tables |= score_tables(scores, methods) if scores else {}
    if "maps" in steps and images.classes is not None:
        draw_maps(model, images, methods, f"{path.parent}/maps_{path.name}")
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
        panels = [(title, name, tables[name]) for name, (title, _) in figures.FIGURES.items() if name in tables]
        if panels:
            figures.draw(out / f"overview_{_file_name(label)}", panels[:6], f"{label}, {len(images.usable)} images")
        texts.append(f"{label}\n\n{summary(tables)}\n")
    if images.failures:
        skipped = ", ".join(images.failures)
        texts.append(f"{len(images.failures)} of {len(images.paths)} images were skipped: {skipped}\n")
    write_text_atomically(out / "summary.txt", "\n".join(texts))
    return "\n".join(texts)


def _file_name(label: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in label).strip("-")

"""The command line of ``analyze.py``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from clearclip.analysis import figures, tables
from clearclip.analysis.inputs import Inputs
from clearclip.analysis.maps import maps_page
from clearclip.analysis.models import HELP, ModelName, parse_model
from clearclip.analysis.scores import score_variants
from clearclip.analysis.statistics import BlockStatistics, collect, image_side
from clearclip.analysis.variants import all_variants
from clearclip.analysis.words import describe_scores, describe_statistics
from clearclip.demo.inputs import find_images, read_words
from clearclip.devices import PRECISIONS
from clearclip.errors import CommandParser, UserError
from clearclip.evaluation.command import Options
from clearclip.evaluation.configs import class_words, load_config
from clearclip.files import write_text_atomically
from clearclip.images import read_image
from clearclip.model import ClearCLIP
from clearclip.pictures import save_image
from clearclip.text import ClassWords

STEPS = ("statistics", "scores", "maps")
#: What a config's model part says about windows and labels; the model itself is --model's.
WINDOW_SETTINGS = ("slide_crop", "slide_stride", "prob_thd", "logit_scale")


def make_parser() -> CommandParser:
    """The options of ``analyze.py``."""
    parser = CommandParser(
        prog="analyze.py",
        description="Draw the paper's analysis: statistics of X_res, X_attn and X_sum, and what they do to mIoU. "
        "Without arguments: the bundled miniature, offline.",
        epilog="example: python analyze.py --model CLIP:ViT-B/16 --model CLIP:ViT-L/14 --model DINO photos/",
    )
    parser.add_argument(
        "images", nargs="*", help="image files or folders, in place of a benchmark; without masks no mIoU"
    )
    parser.add_argument("--model", action="append", metavar="NAME", help=f"may be repeated. {HELP}")
    parser.add_argument("--config", help="benchmark, such as config/cfg_voc20.py (default: the miniature)")
    parser.add_argument("--data-root", help="the dataset's folder, or the folder that holds it under its usual name")
    parser.add_argument(
        "--cfg-options", nargs="+", action=Options, default={}, metavar="KEY=VALUE", help="override parts of the config"
    )
    parser.add_argument("--classes", metavar="WORDS", help='what to look for in images: "sky, tree, grass"')
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS, help="steps to do (default: all)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--block", type=int, metavar="K", help="whose channels are drawn, from 1 (default: the last)")
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help="side of the statistics' images (default: the model's)"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images per batch of the statistics")
    parser.add_argument("--maps", type=int, default=3, metavar="N", help="images on the page of maps (default 3)")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps; default: the best that is here")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--out", type=Path, default=Path("outputs/analysis"), help="folder (default %(default)s)")
    return parser


@dataclass
class Findings:
    """What was found, by model."""

    statistics: list[BlockStatistics] = field(default_factory=list)
    blocks: dict[str, int] = field(default_factory=dict)
    scores: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)


def main(root: Path, arguments: Sequence[str] | None = None) -> int:
    """Analyse as the command line says.

    Args:
        root: the folder that has ``config/``.
        arguments: default those of the command line.

    Returns:
        0, or 1 where one of several models could not be loaded or used.

    Raises:
        UserError: anything that the user can mend.
    """
    args = make_parser().parse_args(arguments)
    _check(args)
    inputs, classes, settings, palette, cfg = _choose_inputs(root, args)
    names = _choose_models(args, cfg)
    found, failed = Findings(), 0
    for name in names:
        try:
            model = name.load(device=args.device, precision=args.precision, **settings)
            _check_model(model, name.label, args)
            _analyze(model, name.label, inputs, classes, palette, args, found)
        except UserError as error:
            if len(names) == 1:
                raise
            print(f"error: {name.label}: {error}", file=sys.stderr)
            failed += 1
            continue
        # After every model, so that a long run that is killed leaves what it has found.
        _draw(found, args.out)
        _report(found, inputs, args.out)
    if failed == len(names):
        raise UserError("none of the models could be analysed; see the reasons above")
    print((args.out / "summary.txt").read_text(encoding="utf-8"))
    print(f"figures (PNG, PDF) with their numbers (CSV), and this text as summary.txt: {args.out}")
    return 1 if failed else 0


def _check(args: Namespace) -> None:
    for name in ("limit", "block", "size", "batch_size", "maps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if args.images and args.config:
        raise UserError("images and --config are two inputs; give one of them")
    if args.images and args.only == ["scores"]:
        raise UserError("mIoU needs masks, which images alone do not have; give a benchmark's --config")
    if args.images and args.only == ["maps"] and not args.classes:
        raise UserError('maps need words; name what to look for, such as --classes "sky, tree, grass"')
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out} is a file; name a folder")


def _choose_inputs(root: Path, args: Namespace) -> tuple[Inputs, ClassWords | None, dict[str, Any], Any, Any]:
    """Images, classes, settings of the windows, palette, and the config where there is one."""
    if args.images:
        inputs = Inputs(find_images(args.images)[: args.limit])
        if len(inputs.paths) == 1:
            read_image(inputs.paths[0])  # loading a model for nothing takes long
        return inputs, read_words(args.classes) if args.classes else None, {}, None, None
    if args.classes:
        raise UserError("--classes is for images; a benchmark's words are in its names file (model.name_path)")
    cfg = load_config(args.config or root / "config" / "cfg_miniature.py", args.cfg_options, args.data_root)
    inputs = Inputs.of_benchmark(cfg, args.limit)
    settings = {name: cfg.model[name] for name in WINDOW_SETTINGS if name in cfg.model}
    scales = [step["scale"] for step in cfg.test_dataloader.dataset.pipeline if step["type"] == "Resize"]
    settings["short_side"] = min(scales[0]) if scales else None
    settings["long_side"] = max(scales[0]) if scales else 2048
    return inputs, class_words(cfg.model), settings, inputs.dataset.metainfo.get("palette"), cfg


def _choose_models(args: Namespace, cfg: Any) -> list[ModelName]:
    """The models that were asked for, else the config's, else the miniature."""
    if args.model:
        return list({name: parse_model(name) for name in args.model}.values())
    own = (
        {name: cfg.model[name] for name in ("model_name", "clip_type", "vit_type", "pretrained") if name in cfg.model}
        if cfg
        else {}
    )
    if not own or own.get("clip_type") == "Miniature":
        return [parse_model("miniature")]
    label = own.get("model_name") or f"{own.get('clip_type', 'CLIP')} {own.get('vit_type', 'ViT-B/16')}"
    return [ModelName(label, own)]


def _check_model(model: ClearCLIP, label: str, args: Namespace) -> None:
    """What the command line asks of a model and the model lacks."""
    encoder = model.image_encoder
    blocks, patch = len(encoder.blocks), encoder.patch_size[0]
    if args.block is not None and args.block > blocks:
        raise UserError(f"{label} has no block {args.block}; it has blocks 1 to {blocks}")
    if args.size is not None and encoder.fixed_size is None and args.size % patch:
        raise UserError(f"--size {args.size} is no multiple of the patch of {label}, {patch} pixels")


def _analyze(
    model: ClearCLIP,
    label: str,
    inputs: Inputs,
    classes: ClassWords | None,
    palette: Any,
    args: Namespace,
    found: Findings,
) -> None:
    words = found.words.setdefault(label, [])
    if "statistics" in args.only:
        side = image_side(model.image_encoder)
        side = args.size if args.size is not None and model.image_encoder.fixed_size is None else side
        batches = inputs.squares(model, side, args.batch_size, label)
        statistics = collect(model.image_encoder, batches, label)
        found.statistics.append(statistics)
        found.blocks[label] = args.block or statistics.blocks
        words += describe_statistics(statistics, found.blocks[label])
    if model.text_encoder is None:
        words.append("It has no text side, so there are no mIoU and no maps.")
        return
    if "scores" in args.only and inputs.dataset is not None:
        text = model.encode_text(classes, progress=True)
        scores = score_variants(model, inputs.samples(label), text, all_variants())
        parts = {
            "features": tables.feature_table(scores),
            "alpha": tables.alpha_table(scores),
            "ablation": tables.ablation_table(scores),
        }
        found.scores[label] = parts
        words += describe_scores(**parts)
    if "maps" in args.only and classes is not None:
        _draw_maps(model, label, inputs, classes, palette, args)


def _draw_maps(
    model: ClearCLIP, label: str, inputs: Inputs, classes: ClassWords, palette: Any, args: Namespace
) -> None:
    """Maps of images spread over the input; those that cannot be read are passed over."""
    paths = inputs.usable
    places = np.linspace(0, len(paths) - 1, min(args.maps, len(paths))).round().astype(int)
    images, truths = [], []
    for path in [paths[place] for place in dict.fromkeys(places.tolist())]:
        try:
            images.append(read_image(path))
        except UserError as error:
            inputs.fail(path, str(error))
            continue
        truths.append(inputs.truth(path))
    if images:
        page = maps_page(model, images, truths, classes, palette)
        for suffix in (".png", ".pdf"):
            save_image(page, args.out / f"maps_{file_name(label)}{suffix}")


def _draw(found: Findings, out: Path) -> None:
    blocks = found.blocks

    def draw_channels(axes: Axes, one: BlockStatistics) -> None:
        figures.draw_channels(axes, one, blocks[one.model])

    if found.statistics:
        items = [(one.model, one) for one in found.statistics]
        for name, draw, table in (
            ("norms", figures.draw_norms, tables.block_table(found.statistics, "norm")),
            ("entropy", figures.draw_entropy, tables.block_table(found.statistics, "entropy")),
            ("channels", draw_channels, tables.channel_table(found.statistics, blocks)),
        ):
            figures.save(figures.panels(draw, items), out / name, table)
        for one in found.statistics:
            page = figures.overview(one, blocks[one.model], found.scores.get(one.model))
            figures.save(page, out / f"overview_{file_name(one.model)}")
    if found.scores:
        for name, draw, unit in (
            ("features", figures.draw_features, ""),
            ("alpha", figures.draw_alpha, ""),
            ("ablation", figures.draw_ablation, ": mIoU (%)"),
        ):
            parts = {model: scores[name] for model, scores in found.scores.items()}
            items = [(model + unit, table) for model, table in parts.items()]
            figure = figures.panels(draw, items, legend=name == "alpha")
            figures.save(figure, out / name, tables.of_models(parts))


def _report(found: Findings, inputs: Inputs, out: Path) -> None:
    """Keep what the figures show, in words, beside them."""
    lines = []
    for label, words in found.words.items():
        lines += [label, *(f"- {sentence}" for sentence in words), ""]
    if inputs.dataset is None:
        lines.append("The images have no masks, so there is no mIoU.")
    if inputs.failures:
        lines.append(f"{len(inputs.failures)} of {len(inputs.paths)} images were skipped: {', '.join(inputs.failures)}")
    write_text_atomically(out / "summary.txt", "\n".join(lines).rstrip() + "\n")


def file_name(label: str) -> str:
    """A model's label as part of a file name."""
    return "".join(letter if letter.isalnum() else "-" for letter in label).strip("-")

"""The command line of ``demo.py``."""

from __future__ import annotations

import json
import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from clearclip.commands.console import IMPORT, CommandParser, import_file
from clearclip.commands.options import (
    NAMING,
    SCENES,
    WORDS,
    add_model_options,
    find_images,
    is_miniature,
    model_options,
    read_words,
    warn_of_photographs,
    with_background,
)
from clearclip.methods import METHODS, Method, build_method
from clearclip.miniature import CLASSES, PALETTE
from clearclip.model import ClearCLIP
from clearclip.result import Segmentation, compare_picture
from clearclip.results.published import FAMILY
from clearclip.settings import ModelSettings
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, user_path, write_bytes
from clearclip.utils.images import ImageLike, read_image
from clearclip.visualize import save_image

ENDINGS = ("segmentation.png", "compare.png", "heatmaps.png", "labels.png", "labels.json")


def make_parser() -> CommandParser:
    """The options."""
    out = CommandParser(
        description="Segment images by words. Without arguments: the bundled miniature, offline.",
        epilog='example: python demo.py photo.jpg --classes "sky, hill | mountain, tree, horse" --compare',
    )
    out.add_argument("images", nargs="*", help="image files, folders or glob patterns")
    add = out.add_argument_group("words").add_argument
    add("--classes", metavar="WORDS", help=WORDS)
    add("--name-path", metavar="FILE", help="the same as a file: a class per line")
    add("--background", action="store_true", help='add the class "background" as label 0')
    add = out.add_argument_group("method").add_argument
    known = f'{", ".join(METHODS)}, a row such as "SCLIP + ClearCLIP", or your own'
    add("--model-type", default=ModelSettings.model_type, metavar="NAME", help=f"{known} (default: %(default)s)")
    add("--ignore-residual", action="store_true", help='the method "+ ClearCLIP": without residual connection and FFN')
    add("--import", **IMPORT)
    add_model_options(out.add_argument_group("model"))
    add = out.add_argument_group("result").add_argument
    add("--out", type=user_path, default=Path("outputs/demo"), metavar="FOLDER", help="default: %(default)s")
    rows = f"also methods side by side (default: {', '.join(FAMILY)} and the one chosen)"
    add("--compare", nargs="*", metavar="NAME", help=rows)
    add("--heatmaps", action="store_true", help="also a similarity map for each word")
    add = out.add_argument_group("web page").add_argument
    add("--web", action="store_true", help="serve a page for this machine's browser (needs gradio)")
    add("--port", type=int, help="of the page (default: the first free one from 7860)")
    return out


def read_settings(args: Namespace) -> ModelSettings:
    """The settings that the options mean: the miniature where neither model nor image is named."""
    options = model_options(args)
    if not args.images and not options.keys() & set(NAMING):
        options["model_name"] = "miniature"
    method = build_method(args.model_type)
    method = method.keeping(False) if args.ignore_residual else method
    return ModelSettings.from_options({**options, "method": method})


def choose_classes(args: Namespace, settings: ModelSettings) -> ClassWords:
    """The classes that were named, or the miniature's own."""
    background = args.background or settings.prob_thd > 0
    if args.classes is not None and args.name_path is not None:
        raise UserError("--classes and --name-path both name the classes; give one of them")
    if args.name_path is not None:
        return with_background(ClassWords.read(args.name_path), background)
    own = is_miniature(settings) and args.classes is None
    return read_words(", ".join(CLASSES) if own else args.classes or "", background)


def segment(
    model: ClearCLIP, image: ImageLike, classes: ClassWords, methods: Sequence[Method]
) -> dict[str, Segmentation]:
    """One result for each method, by its label; the miniature's classes have their own colours."""
    results = model.compare(image, classes, list({method.label: method for method in methods}.values()))
    for result in results.values() if classes.names == list(CLASSES) else ():
        result.colours = PALETTE
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0, or 2 where one of several images could not be read. A UserError for what the user can fix."""
    args = make_parser().parse_args(argv)
    for file in args.imports:
        import_file(file)
    if args.web:
        # Read when gradio is imported: no telemetry.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
        try:
            import gradio
        except ImportError as error:
            raise UserError(f"the web page needs gradio ({error}); install it: pip install -U gradio") from error
        if int(gradio.__version__.split(".")[0]) < 6:  # whose pages load a script from elsewhere
            raise UserError(f"gradio {gradio.__version__} is too old for the page; update it: pip install -U gradio")
        from clearclip.commands.web import serve

        return serve(args)

    settings = read_settings(args)
    names = [] if args.compare is None else args.compare or [*FAMILY, settings.method]
    compared = [build_method(name) for name in names]
    if not (args.images or is_miniature(settings)):
        raise UserError('no image given; name one: python demo.py photo.jpg --classes "sky, tree, grass"')
    images = find_images(args.images) or SCENES
    classes = choose_classes(args, settings)
    check_folder("--out", args.out)
    if len(images) == 1:
        read_image(images[0])  # before a model is loaded for nothing
    warn_of_photographs(settings, images)
    model = ClearCLIP.from_settings(settings)
    for method in list(compared):
        try:
            model.check(method)
        except UserError as error:
            if args.compare:  # it was asked for
                raise
            warnings.warn(f"{method.label} is left out of the comparison: {error}", stacklevel=2)
            compared.remove(method)
    model.encode_text(classes, progress=True)

    taken, failed, label = {path.resolve() for path in images}, 0, model.method.label
    for path in images:
        try:
            image = read_image(path)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        results = segment(model, image, classes, [model.method, *compared])
        result, stem = results[label], free_stem(args.out, path, taken)
        picture, *_ = write_result(stem, result, path, settings.prob_thd)
        found = sorted(result.shares.items(), key=lambda item: -item[1])[:5]
        print(f"{picture}  ({', '.join(f'{name} {share:.1%}' for name, share in found if share)})", flush=True)
        if args.heatmaps:
            print(save_image(result.heat_maps(), f"{stem}_heatmaps.png"), flush=True)
        if compared:
            shown = compare_picture({other.label: results[other.label] for other in compared})
            print(save_image(shown, f"{stem}_compare.png"), flush=True)
    if failed < len(images):
        print(f"label maps (grey values are class ids) and what they mean: {args.out / '*_labels.png'}, *_labels.json")
    return 2 if failed else 0


def free_stem(folder: Path, image: Path, taken: set[Path]) -> Path:
    """What the paths of an image's files begin with, such that none is ``taken``; they are added to it."""
    name = image.stem
    while len(os.fsencode(name)) > 200:  # file systems take 255 bytes
        name = name[:-1]
    stem, number = name, 1
    while taken & (files := {(folder / f"{stem}_{ending}").resolve() for ending in ENDINGS}):
        number += 1
        stem = f"{name}_{number}"
    taken |= files
    return folder / stem


def write_result(stem: Path, result: Segmentation, image: str | Path, prob_thd: float) -> list[Path]:
    """Write the picture, the label map (grey values are class ids), and what they are and mean as JSON."""
    picture, labels = result.save(f"{stem}_segmentation.png"), result.save_labels(f"{stem}_labels.png")
    height, width = result.labels.shape
    classes = [
        {"id": label, "name": words[0], "words": list(words), "colour": f"#{bytes(result.colours[label]).hex()}",
         "pixels": int(result.class_pixels[label]), "share": result.class_pixels[label] / result.labels.size}
        for label, words in enumerate(result.words)
    ]  # fmt: skip
    facts = {"image": str(image), "model": result.model, "method": result.method, "prob_thd": prob_thd}
    content = {**facts, "labels": labels.name, "width": width, "height": height, "classes": classes}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # The bytes of a name that is not UTF-8 stay readable as JSON's own escapes.
    return [picture, labels, write_bytes(f"{stem}_labels.json", text.encode(errors="backslashreplace"))]

"""The command line of ``demo.py``."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from clearclip.commands.command_line import CommandParser, ImportFile
from clearclip.commands.model_arguments import (
    SCENES,
    WORDS,
    add_model_options,
    choose_classes,
    find_images,
    free_stem,
    is_miniature,
    read_settings,
    segment,
    warn_of_photographs,
    write_result,
)
from clearclip.methods import METHODS, build_method
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.results.published import FAMILY
from clearclip.segmentation import compare_picture
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, user_path
from clearclip.utils.images import read_image
from clearclip.visualize import save_image


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
    add("--import", action=ImportFile)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0, or 2 where one of several images could not be read. A UserError for what the user can fix."""
    args = make_parser().parse_args(argv)
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

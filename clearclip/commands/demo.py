"""What ``demo.py`` does once its arguments have been read."""

from __future__ import annotations

import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence

from clearclip.commands.demo_maps import picture_options, segment_maps, separate_maps
from clearclip.commands.demo_parser import make_parser
from clearclip.commands.model_arguments import (
    SCENES,
    choose_classes,
    find_images,
    free_stem,
    is_miniature,
    read_settings,
    segment,
    warn_of_photographs,
    write_result,
)
from clearclip.methods import build_method
from clearclip.model import ClearCLIP
from clearclip.results.table_definitions import FAMILY
from clearclip.segmentation import compare_picture
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder
from clearclip.utils.images import read_image
from clearclip.utils.printable import printable
from clearclip.visualize import save_image


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo as a command line says; see :func:`run`."""
    return run(make_parser().parse_args(argv))


def run(args: Namespace) -> int:
    """Run the demo; 0, or 2 where one of several images could not be read. A UserError for what the user can fix."""
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
    maps, images = separate_maps(images)
    reading = picture_options(args)
    if len(images) == 1:
        read_image(images[0], **reading)  # before a model is loaded for nothing
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
    failed_maps = segment_maps(args, model, maps, classes)
    if not images:
        return 2 if failed_maps else 0

    taken, failed, label = {path.resolve() for path in images}, 0, model.method.label
    for path in images:
        try:
            image = read_image(path, **reading)
        except UserError as error:
            print(f"error: {printable(error)}", file=sys.stderr)
            failed += 1
            continue
        results = segment(model, image, classes, [model.method, *compared])
        result, stem = results[label], free_stem(args.out, path, taken)
        picture, *_ = write_result(stem, result, path, settings.prob_thd)
        found = sorted(result.shares.items(), key=lambda item: -item[1])[:5]
        shares = ", ".join(f"{name} {share:.1%}" for name, share in found if share)
        print(printable(f"{picture}  ({shares})"), flush=True)
        if args.heatmaps:
            print(printable(save_image(result.heat_maps(), f"{stem}_heatmaps.png")), flush=True)
        if compared:
            shown = compare_picture({other.label: results[other.label] for other in compared})
            print(printable(save_image(shown, f"{stem}_compare.png")), flush=True)
    if failed < len(images):
        print(f"label maps (grey values are class ids) and what they mean: {args.out / '*_labels.png'}, *_labels.json")
    return 2 if failed or failed_maps else 0

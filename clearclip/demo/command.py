"""The command line of ``demo.py``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clearclip.checkpoints import CLIP_TYPES, DEFAULT
from clearclip.demo.inputs import find_images, read_words, with_background
from clearclip.demo.outputs import Outputs
from clearclip.demo.rows import ROWS, method_of, use_method
from clearclip.devices import PRECISIONS
from clearclip.errors import CommandParser, UserError
from clearclip.image_encoder import check_depth
from clearclip.images import read_image
from clearclip.miniature import BENCHMARK, CLASSES, PALETTE
from clearclip.model import ClearCLIP
from clearclip.pictures import compare_picture, share_text
from clearclip.segmentation import Segmentation
from clearclip.text import ClassWords

#: The scenes of the miniature that are shown when no image is given.
SCENES = ("0028", "0001", "0032")


def parser() -> CommandParser:
    """The options."""
    out = CommandParser(
        prog="demo.py",
        description="Segment images by words. Without arguments: the bundled miniature, offline.",
        epilog='example: python demo.py photo.jpg --classes "sky, hill, tree, horse, grass" --compare',
    )
    out.add_argument("images", nargs="*", help="image files, folders or glob patterns")
    words = out.add_argument_group("words")
    words.add_argument("--classes", metavar="WORDS", help='what to look for: "sky, tree, grass"')
    words.add_argument("--name-path", metavar="FILE", help="the same as a file: a class per line, synonyms by commas")
    words.add_argument("--background", action="store_true", help='add the class "background" as label 0')
    words.add_argument(
        "--prob-thd",
        type=float,
        default=0.0,
        metavar="P",
        help="pixels whose largest probability is below P (0 to 1) become background",
    )
    model = out.add_argument_group("model")
    model.add_argument("--clip-type", choices=CLIP_TYPES, help="whose weights (default: CLIP)")
    model.add_argument("--vit-type", metavar="NAME", help="ViT-B/16 (default) or ViT-L/14")
    model.add_argument("--model", metavar="NAME", help="an OpenCLIP model by its own name, such as ViT-B-32")
    model.add_argument(
        "--pretrained", metavar="FILE", help="weights at hand (or an OpenCLIP tag); random: none, for a dry run"
    )
    model.add_argument("--model-type", choices=[*ROWS, "vanilla"], default="ClearCLIP", help="the method")
    model.add_argument("--ignore-residual", action="store_true", help='any method "+ ClearCLIP": no residual, no FFN')
    model.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: the best there is)")
    model.add_argument("--precision", choices=PRECISIONS, default="auto")
    model.add_argument("--no-cache", action="store_true", help="keep no text features on disk")
    result = out.add_argument_group("result")
    result.add_argument("--out", type=Path, default=Path("outputs/demo"), metavar="FOLDER", help="default: %(default)s")
    result.add_argument("--compare", action="store_true", help=f"also {', '.join(ROWS)} side by side")
    result.add_argument("--heatmaps", action="store_true", help="also a similarity map for each word")
    web = out.add_argument_group("web page")
    web.add_argument("--web", action="store_true", help="serve a page for this machine's browser (needs gradio)")
    web.add_argument("--port", type=int, help="of the page (default: the first free one from 7860)")
    web.add_argument("--share", action="store_true", help="also give it a public address, through Gradio's servers")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: the arguments, default those of the command line.

    Returns:
        0, or 2 where one of several images could not be read.

    Raises:
        UserError: anything that the user can mend.
    """
    args = parser().parse_args(argv)
    if args.model_type == "vanilla":
        args.model_type = "CLIP"
    if not 0 <= args.prob_thd <= 1:
        raise UserError(f"--prob-thd {args.prob_thd} is no probability; give a number from 0 to 1")
    if args.web:
        from clearclip.demo.web import serve

        return serve(args)
    images, classes = choose_images(args), choose_classes(args)
    if len(images) == 1:
        read_image(images[0])  # loading a model for nothing takes long
    model = load(args)
    for row in ROWS if args.compare else ():
        check_depth(method_of(row), len(model.image_encoder.blocks))
    model.encode_text(classes, progress=True)
    outputs, failed = Outputs(args.out, images), 0
    for path in images:
        try:
            image = read_image(path)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        stem = outputs.stem(path)
        result = show(model, image, classes, args, outputs, stem)
        outputs.labels(stem, result, facts(args, model, path))
    if failed < len(images):
        print(f"label maps (grey values are class ids) and what they mean: {args.out / '*_labels.png'}, *_labels.json")
    return 2 if failed else 0


def show(
    model: ClearCLIP, image: np.ndarray, classes: ClassWords, args: Namespace, outputs: Outputs, stem: str
) -> Segmentation:
    """Segment one image and write the pictures that were asked for."""
    result = segment(model, image, classes, args.prob_thd)
    found = sorted(result.shares.items(), key=lambda item: -item[1])[:5]
    shares = ", ".join(f"{name} {share_text(share)}" for name, share in found if share)
    print(f"{outputs.picture(stem, 'segmentation', result.picture())}  ({shares})", flush=True)
    if args.heatmaps:
        print(outputs.picture(stem, "heatmaps", result.heat_maps()), flush=True)
    if args.compare:
        own = model.image_encoder.method
        results = {}
        for row in ROWS:
            results[row] = segment(use_method(model, method_of(row)), image, classes, args.prob_thd)
        use_method(model, own)
        print(outputs.picture(stem, "compare", compare_picture(results)), flush=True)
    return result


def segment(model: ClearCLIP, image: np.ndarray, classes: ClassWords, prob_thd: float) -> Segmentation:
    """:meth:`ClearCLIP.segment`, in the miniature's own colours where its classes are asked for."""
    result = model.segment(image, classes, prob_thd=prob_thd)
    if classes.names == list(CLASSES):
        result.colours = PALETTE
    return result


def wants_miniature(args: Namespace) -> bool:
    """Whether the bundled model is meant: by name, or because neither an image nor another model was named."""
    named = args.clip_type or args.vit_type or args.model or args.pretrained
    return args.clip_type == "Miniature" or args.model == "miniature" or not (named or args.images)


def choose_images(args: Namespace) -> list[Path]:
    """The images that are meant.

    Raises:
        UserError: there are none.
    """
    if args.images:
        return find_images(args.images)
    if not wants_miniature(args):
        raise UserError('no image given; name one: python demo.py photo.jpg --classes "sky, tree, grass"')
    return [BENCHMARK / "images" / "val" / f"{scene}.png" for scene in SCENES]


def choose_classes(args: Namespace) -> ClassWords:
    """The classes that are meant.

    Raises:
        UserError: no words, or words in two places.
    """
    background = args.background or args.prob_thd > 0
    if args.classes is not None and args.name_path is not None:
        raise UserError("--classes and --name-path both name the classes; give one of them")
    if args.name_path is not None:
        return with_background(ClassWords.read(args.name_path), background)
    if args.classes is not None:
        return read_words(args.classes, background)
    if wants_miniature(args):
        return with_background(ClassWords.parse(list(CLASSES)), background)
    raise UserError('no words given; name what to look for, such as --classes "sky, tree, grass"')


def load(args: Namespace) -> ClearCLIP:
    """The model that is meant, with its method."""
    name = "miniature" if wants_miniature(args) else args.model
    random = args.pretrained is not None and args.pretrained.lower() == "random"
    model = ClearCLIP.from_pretrained(
        name,
        None if random else args.pretrained or DEFAULT,
        clip_type=None if name == "miniature" else args.clip_type,
        vit_type=None if name == "miniature" else args.vit_type,
        precision=args.precision,
        device=args.device,
        cached=not args.no_cache and not random,
    )
    return use_method(model, method_of(args.model_type, args.ignore_residual))


def facts(args: Namespace, model: ClearCLIP, path: Path) -> dict:
    """What the JSON beside a label map says of its making."""
    return {
        "image": str(path),
        "model": model.weights.label if model.weights else None,
        "method": args.model_type + (" + ClearCLIP" if args.ignore_residual and args.model_type != "ClearCLIP" else ""),
        "prob_thd": args.prob_thd,
    }

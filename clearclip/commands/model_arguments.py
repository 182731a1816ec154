"""What demo.py, its page and analyze.py share: which model and classes a command line means."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

from clearclip.checkpoint_names import CHECKPOINT_BY_MODEL_NAME, named_checkpoint
from clearclip.commands.model_flags import model_options
from clearclip.commands.typed_words import read_words, with_background
from clearclip.methods import Method, build_method
from clearclip.miniature import BENCHMARK, CLASSES, NAME, PALETTE
from clearclip.model import ClearCLIP
from clearclip.model_settings import WEIGHT_OPTIONS, ModelSettings
from clearclip.segmentation import Segmentation
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError
from clearclip.utils.images import ImageLike

#: The miniature's scenes that are shown when no image is given: some with many classes.
SCENES = [BENCHMARK / "images" / "val" / f"{scene}.png" for scene in ("0022", "0047", "0016")]
DRAWN_ONLY = "the miniature knows drawn scenes only; for photographs take CLIP: --model ViT-B-16 --pretrained openai"


def is_miniature(settings: ModelSettings) -> bool:
    """Whether these settings mean the bundled model."""
    checkpoint = named_checkpoint(settings.clip_type, settings.vit_type, settings.model_name)
    return checkpoint in CHECKPOINT_BY_MODEL_NAME.values()


def is_scene(path: Path) -> bool:
    """Whether a file is one of the miniature's drawn scenes."""
    # By content: a photograph may be called 0022.png as well.
    scene = BENCHMARK / "images" / "val" / path.name
    return scene.is_file() and scene.read_bytes() == path.read_bytes()


def warn_of_photographs(settings: ModelSettings, images: Iterable[Path]) -> None:
    """Say what the miniature cannot do, where it is asked for it."""
    if is_miniature(settings) and not all(map(is_scene, images)):
        warnings.warn(DRAWN_ONLY, stacklevel=2)


def read_settings(args: Namespace) -> ModelSettings:
    """The settings that the options mean: the miniature where neither model nor image is named."""
    options = model_options(args)
    if not args.images and not options.keys() & set(WEIGHT_OPTIONS):
        options["model_name"] = NAME
    method = build_method(args.model_type)
    if args.ignore_residual:
        method = method.without_residual_and_ffn()
    return ModelSettings.from_options({**options, "method": method})


def choose_classes(args: Namespace, settings: ModelSettings) -> ClassWords:
    """The classes that were named, or the miniature's own."""
    background = args.background or settings.prob_thd > 0
    if args.classes is not None and args.name_path is not None:
        raise UserError("--classes and --name-path both name the classes; give one of them")
    if args.name_path is not None:
        return with_background(ClassWords.read(args.name_path), background)
    if args.classes is None and is_miniature(settings):
        return with_background(ClassWords.parse(list(CLASSES)), background)
    return read_words(args.classes or "", background)


def segment(
    model: ClearCLIP, image: ImageLike, classes: ClassWords, methods: Sequence[Method]
) -> dict[str, Segmentation]:
    """One result for each method, by its label; the miniature's classes have their own colours."""
    results = model.compare(image, classes, methods)
    # Its palette is made for these classes; any others get colours by their names.
    if classes.names == list(CLASSES):
        for result in results.values():
            result.colours = PALETTE
    return results

"""What demo.py, its page and analyze.py share: which images, words and model the user means, and a result's files."""

from __future__ import annotations

import glob
import json
import os
import warnings
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

from clearclip.commands.model_flags import WEIGHT_FLAGS, model_options
from clearclip.methods import Method, build_method
from clearclip.miniature import BENCHMARK, CLASSES, PALETTE
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.segmentation import Segmentation
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path, write_bytes
from clearclip.utils.images import ImageLike

#: What a result's files end in.
ENDINGS = ("segmentation.png", "compare.png", "heatmaps.png", "labels.png", "labels.json")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jfif", ".avif"}
#: The miniature's scenes that are shown when no image is given: some with many classes.
SCENES = [BENCHMARK / "images" / "val" / f"{scene}.png" for scene in ("0022", "0047", "0016")]
DRAWN_ONLY = "the miniature knows drawn scenes only; for photographs take CLIP: --model ViT-B-16 --pretrained openai"


def is_miniature(settings: ModelSettings) -> bool:
    """Whether these settings mean the bundled model."""
    return settings.model_name == "miniature" or settings.clip_type == "Miniature"


def is_scene(path: Path) -> bool:
    """Whether a file is one of the miniature's drawn scenes."""
    scene = BENCHMARK / "images" / "val" / path.name
    return scene.is_file() and scene.read_bytes() == path.read_bytes()


def warn_of_photographs(settings: ModelSettings, images: Iterable[Path]) -> None:
    """Say what the miniature cannot do, where it is asked for it."""
    if is_miniature(settings) and not all(map(is_scene, images)):
        warnings.warn(DRAWN_ONLY, stacklevel=2)


def find_images(arguments: Sequence[str]) -> list[Path]:
    """The image files of files, folders and glob patterns, in order, each once; a UserError where one has none."""
    found: dict[Path, None] = {}
    for argument in arguments:
        path = user_path(argument)
        try:
            if path.is_dir():
                images = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            else:
                images = [path] if path.exists() else map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207
            images = [image for image in images if image.is_file()]
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{argument[:80]} cannot be read ({reason}); check its name") from error
        if not images:
            raise UserError(f"no image at {argument[:400]}; give image files, folders with images or glob patterns")
        found.update(dict.fromkeys(images))
    return list(found)


def read_words(text: str, background: bool = False) -> ClassWords:
    """Classes with commas between them, without repetitions; a UserError where there are none."""
    lines = dict.fromkeys(" ".join(line.split()) for line in text.split(",") if line.strip())
    if not lines:
        raise UserError('no words given; name what to look for with --classes, such as "sky, tree, grass"')
    return with_background(ClassWords.parse(list(lines)), background)


def with_background(classes: ClassWords, background: bool) -> ClassWords:
    """``classes``, with "background" as label 0 if ``background``; a single class alone is a UserError."""
    if background:
        named = [words for words in classes.classes if words[0].lower() == "background"] or [("background",)]
        classes = ClassWords((named[0], *(words for words in classes.classes if words not in named)))
    if len(classes) < 2:
        raise UserError(f"{classes.names[0]!r} alone would cover the whole image; give two words, such as background")
    return classes


def read_settings(args: Namespace) -> ModelSettings:
    """The settings that the options mean: the miniature where neither model nor image is named."""
    options = model_options(args)
    if not args.images and not options.keys() & set(WEIGHT_FLAGS):
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
    results = model.compare(image, classes, methods)
    for result in results.values() if classes.names == list(CLASSES) else ():
        result.colours = PALETTE
    return results


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

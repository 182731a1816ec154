"""What ``demo.py`` does once its arguments have been read."""

from __future__ import annotations

import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clearclip.commands.demo_maps import check_map_options, picture_options, segment_maps, separate_maps
from clearclip.commands.demo_parser import demo_parser
from clearclip.commands.image_search import ImageFile, search_images, tells_where_images_are
from clearclip.commands.model_arguments import (
    SCENES,
    choose_classes,
    is_miniature,
    read_settings,
    segment,
    warn_of_photographs,
)
from clearclip.commands.result_files import (
    ResultNames,
    existing_facts,
    file_digest,
    label_map_path,
    largest_shares,
    result_facts,
    settings_facts,
    write_facts,
    write_folder_formats,
    write_shares,
)
from clearclip.commands.scene_truth import image_miou, scene_truth
from clearclip.commands.typed_words import check_stray_words
from clearclip.methods import METHODS, Method, build_method
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.results.table_definitions import FAMILY
from clearclip.segmentation import Segmentation, comparison_page
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder
from clearclip.utils.images import read_image
from clearclip.utils.printable import printable
from clearclip.visualize import class_palette, save_image

#: The page loads nothing from elsewhere from this version on.
OLDEST_GRADIO = 6
#: How many images that could not be read are named at the end.
MAX_NAMED_FAILURES = 10


def demo_command(argv: Sequence[str] | None = None) -> int:
    """Run the demo as a command line says; see :func:`run_demo`."""
    return run_demo(demo_parser().parse_args(argv))


def run_demo(args: Namespace) -> int:
    """Run the demo; 0, or 2 where one of several images could not be read. A UserError for what the user can fix."""
    if args.web:
        return _serve_page(args)
    _take_images_after_compare(args)
    settings = read_settings(args)
    compared = _compared_methods(args, settings)
    images = _choose_images(args, settings)
    classes = choose_classes(args, settings)
    check_folder("--out", args.out)
    maps, pictures = separate_maps(images)
    check_map_options(args, maps)
    if len(pictures) == 1:
        read_image(pictures[0].path, **picture_options(args))  # before a model is loaded for nothing
    warn_of_photographs(settings, [image.path for image in pictures])
    model = ClearCLIP.from_settings(settings)
    methods = [method for method in compared if _can_compute(model, method, is_asked_for=bool(args.compare))]
    model.encode_text(classes, progress=True)
    shares_of_maps = segment_maps(args, model, maps, classes)
    code = _DemoRun(args, model, classes, methods, shares_of_maps).segment_all(pictures)
    all_maps_were_read = len(shares_of_maps) == len(maps)
    return code if all_maps_were_read else 2


def _serve_page(args: Namespace) -> int:
    """Serve the web page until it is stopped."""
    # Read when gradio is imported: no telemetry.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"the web page needs gradio ({error}); install it: pip install -U gradio") from error
    if int(gradio.__version__.split(".")[0]) < OLDEST_GRADIO:
        raise UserError(f"gradio {gradio.__version__} is too old for the page; update it: pip install -U gradio")
    from clearclip.commands.web import serve

    return serve(args)


def _take_images_after_compare(args: Namespace) -> None:
    """Move the images that stand after ``--compare`` to the others: argparse takes all words up to the next option."""
    if not args.compare:
        return
    image_names = []
    method_names = []
    for name in args.compare:
        # A folder may be called like a method, which is what the option is about.
        if name not in METHODS and tells_where_images_are(name):
            image_names.append(name)
        else:
            method_names.append(name)
    args.images = [*args.images, *image_names]
    args.compare = method_names


def _compared_methods(args: Namespace, settings: ModelSettings) -> list[Method]:
    """The methods of ``--compare``: those that it names, or the family and the one that was chosen."""
    if args.compare is None:
        return []
    return [build_method(name) for name in args.compare or [*FAMILY, settings.method]]


def _choose_images(args: Namespace, settings: ModelSettings) -> list[ImageFile]:
    """The images that were named, or the miniature's scenes."""
    check_stray_words(args)
    if not args.images:
        if not is_miniature(settings):
            raise UserError('no image given; name one: python demo.py photo.jpg --classes "sky, tree, grass"')
        return [ImageFile(scene) for scene in SCENES]
    search = search_images(args.images)
    search.say_what_is_left_out()
    return search.images


def _can_compute(model: ClearCLIP, method: Method, is_asked_for: bool) -> bool:
    """Whether the model has what a method needs; an error where the method was asked for by its name."""
    try:
        model.check(method)
    except UserError as error:
        if is_asked_for:
            raise
        warnings.warn(f"{method.label} is left out of the comparison: {error}", stacklevel=2)
        return False
    return True


class _DemoRun:
    """Segments images one after the other and writes their files.

    Args:
        args: the command line.
        model: what computes.
        classes: what to look for.
        compared: methods whose maps are drawn side by side.
        shares_of_maps: rows of the table of shares that come before those of the images.
    """

    def __init__(
        self,
        args: Namespace,
        model: ClearCLIP,
        classes: ClassWords,
        compared: Sequence[Method],
        shares_of_maps: Sequence[dict[str, Any]] = (),
    ):
        self.args = args
        self.model = model
        self.classes = classes
        self.compared = compared
        self.shares_of_maps = list(shares_of_maps)
        # Who names a scale wants the maps.
        self.draws_heat_maps = args.heatmaps or args.heatmap_scale is not None
        self.names = ResultNames(args.out, args.format)
        self.all_facts: list[dict[str, Any]] = []
        self.label_maps: list[tuple[str, Path]] = []
        self.failed_images: list[Path] = []
        self.has_said_size = False

    def segment_all(self, images: Sequence[ImageFile]) -> int:
        """Segment all images; 0, or 2 where one could not be read."""
        self.names.occupied |= {image.path.resolve() for image in images}
        try:
            self._segment_each(images)
        except KeyboardInterrupt:
            hint = "the same command with --skip-existing goes on"
            raise KeyboardInterrupt(f"{len(self.all_facts)} of {len(images)} images are done; {hint}") from None
        finally:
            # Also after Ctrl-C, so that nothing of what was computed is missing in the tables.
            self._write_tables()
        if self.all_facts:
            files = f"{self.args.out / '*_labels.png'}, *_labels.json"
            print(f"label maps (pixels are class ids, in the classes' colours) and what they mean: {files}")
        if not self.failed_images:
            return 0
        if len(images) > 1:
            # Said again: a line in the midst of many is easily missed.
            self._say_what_failed(len(images))
        return 2

    def _segment_each(self, images: Sequence[ImageFile]) -> None:
        """Segment one image after the other; those that cannot be read are kept in ``failed_images``."""
        are_several = len(images) > 1
        # The bar has count, rate and time left; a file or a pipe gets lines only, which None means.
        with tqdm(images, unit="image", disable=None if are_several else True, file=sys.stderr) as bar:
            for number, image in enumerate(bar, start=1):
                prefix = f"[{number}/{len(images)}] " if are_several else ""
                try:
                    self._segment_one(image, prefix)
                except UserError as error:
                    self.failed_images.append(image.path)
                    tqdm.write(f"error: {prefix}{printable(error)}", file=sys.stderr)

    def _say_what_failed(self, image_count: int) -> None:
        names = [str(path) for path in self.failed_images[:MAX_NAMED_FAILURES]]
        if len(self.failed_images) > MAX_NAMED_FAILURES:
            names.append("…")
        line = f"{len(self.failed_images)} of {image_count} images failed: {', '.join(names)}"
        print(printable(line), file=sys.stderr)

    def _segment_one(self, image: ImageFile, prefix: str) -> None:
        """Segment an image and write its files, unless they are there and ``--skip-existing`` was given."""
        stem = self.names.stem_for(image)
        # Taken before the image is read: an image that changes meanwhile is computed again by the next run.
        digest = file_digest(image.path)
        if self.args.skip_existing:
            facts = existing_facts(stem, self._expected_facts(digest), self._pictures(stem))
            if facts is not None:
                # The tables are about all images of the folder, those of earlier runs among them.
                self._remember(image, stem, facts)
                self._say(f"{prefix}{self.names.picture(stem, 'segmentation')}  (is there)")
                return
        pixels = read_image(image.path, **picture_options(self.args))
        self._say_size(image.path, pixels.shape[:2])
        results = segment(self.model, pixels, self.classes, [self.model.method, *self.compared])
        result = results[self.model.method.label]
        for each_result in results.values():
            each_result.image_name = image.path.name
        self._write_pictures(stem, result, prefix)
        self._write_comparison(image, stem, results)
        result.save_labels(label_map_path(stem))
        seen_size = self.model.seen_size(pixels.shape[:2])
        facts = result_facts(result, str(image.path), self.model.settings, digest, seen_size, self.model.method)
        facts |= self._reading_facts()
        # Last of all: --skip-existing takes an image with its facts for done.
        write_facts(stem, facts)
        self._remember(image, stem, facts)

    def _write_pictures(self, stem: Path, result: Segmentation, prefix: str) -> None:
        """Write the pictures of the chosen method, and say where they are."""
        picture = result.save(self.names.picture(stem, "segmentation"))
        self._say(f"{prefix}{picture}  ({largest_shares(result.shares)})")
        if self.draws_heat_maps:
            page = result.heat_map_page(self.args.heatmap_scale or "shared")
            self._say(save_image(page, self.names.picture(stem, "heatmaps")))

    def _write_comparison(self, image: ImageFile, stem: Path, results: Mapping[str, Segmentation]) -> None:
        """Write the picture of the methods that are compared; of a drawn scene with the ground truth and the scores.

        Args:
            image: that was segmented.
            stem: of the result.
            results: of all methods, by their labels.
        """
        if not self.compared:
            return
        truth = scene_truth(image.path, self.classes.names)
        result_by_title = {}
        # In the order in which they were named; the chosen method may not be among them.
        for method in self.compared:
            title = method.label
            if truth is not None:
                title = f"{title} · mIoU {image_miou(results[method.label].labels, truth):.1f}"
            result_by_title[title] = results[method.label]
        page = comparison_page(result_by_title, truth)
        self._say(save_image(page, self.names.picture(stem, "compare")))

    def _expected_facts(self, digest: str) -> dict[str, Any]:
        """What the facts of an earlier result must say for it to be this one."""
        settings = self.model.settings
        return {
            "image_sha256": digest,
            "model": self.model.label,
            "method": self.model.method.label,
            "prob_thd": settings.prob_thd,
            "settings": settings_facts(settings, self.model.method),
            **self._reading_facts(),
            "words": [list(words) for words in self.classes.classes],
        }

    def _reading_facts(self) -> dict[str, Any]:
        """How a raster's bands and levels become a picture, as ``--bands`` and ``--levels`` say."""
        return {"bands": self.args.bands, "levels": self.args.levels}

    def _pictures(self, stem: Path) -> list[Path]:
        """The pictures that this run writes for an image."""
        pictures = [self.names.picture(stem, "segmentation")]
        if self.draws_heat_maps:
            pictures.append(self.names.picture(stem, "heatmaps"))
        if self.compared:
            pictures.append(self.names.picture(stem, "compare"))
        return pictures

    def _remember(self, image: ImageFile, stem: Path, facts: dict[str, Any]) -> None:
        """Keep what the tables of the folder need."""
        self.all_facts.append(facts)
        self.label_maps.append((str(image.subfolder / image.path.name), stem))

    def _say_size(self, path: Path, size: tuple[int, int]) -> None:
        """Say once that the model sees less than there is."""
        seen_height, seen_width = self.model.seen_size(size)
        if self.has_said_size or seen_height >= size[0]:
            return
        self.has_said_size = True
        self._say(
            f"{path.name}: {size[1]} × {size[0]} pixels, of which the model sees {seen_width} × {seen_height} "
            f"(short side {self.model.settings.short_side}); --short-side N shows it more"
        )

    def _write_tables(self) -> None:
        """Write what is about all images: the table of shares, and what was asked for of COCO and CVAT."""
        rows_of_shares = [*self.shares_of_maps, *self.all_facts]
        if len(rows_of_shares) > 1:
            self._say(write_shares(self.args.out / "shares.csv", rows_of_shares))
        if not self.all_facts:
            return
        colours = class_palette(self.classes.names, self._colours())
        formats = {"coco": self.args.coco, "cvat": self.args.cvat}
        for path in write_folder_formats(self.args.out, self.label_maps, self.classes.names, colours, **formats):
            self._say(path)

    def _colours(self) -> list[list[int]]:
        """The colours that the results have."""
        return [list(bytes.fromhex(entry["colour"].lstrip("#"))) for entry in self.all_facts[0]["classes"]]

    @staticmethod
    def _say(line: Any) -> None:
        """Print a line; a progress bar stays below it."""
        tqdm.write(printable(line), file=sys.stdout)
        sys.stdout.flush()

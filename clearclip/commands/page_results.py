"""What the page of ``demo.py --web`` computes, from values as a browser or any other program sends them."""

from __future__ import annotations

import base64
import html
import io
import os
import re
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clearclip.commands.image_search import ImageFile, find_images
from clearclip.commands.model_arguments import SCENES, choose_classes, is_miniature, read_settings, segment
from clearclip.commands.result_files import (
    ResultNames,
    file_digest,
    label_map_path,
    result_facts,
    write_facts,
)
from clearclip.commands.typed_words import read_words
from clearclip.methods import METHODS, Method, build_method
from clearclip.model import ClearCLIP
from clearclip.results.table_definitions import FAMILY
from clearclip.segmentation import Segmentation
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError
from clearclip.visualize import colour_bar, fit, heat_map, overlay

#: Example images, classes in the legend, and heat maps, at most.
MAX_SHOWN = 48
#: Words that one request may have encoded.
MAX_WORDS = 100
#: Longer side of the pictures on the page, in pixels.
SIDE = 900
#: What the name of a method may hold: no JSON, which can name files and a hub's repositories.
METHOD_NAME = re.compile(r"[\w +.-]{1,80}")


@dataclass
class PageResult:
    """What one request shows.

    Attributes:
        overlay: the image with its classes.
        comparison: overlays of CLIP and of the method.
        legend: HTML with each class's colour, name and shares.
        heat_maps: pictures with their titles.
        scale: HTML of the colour bar of the heat maps.
        files: for download.
        facts: what the ids of the label map mean.
    """

    overlay: np.ndarray
    comparison: tuple[Image.Image, Image.Image]
    legend: str
    heat_maps: list[tuple[Image.Image, str]]
    scale: str
    files: list[str]
    facts: dict[str, Any]


class PageModel:
    """The model of a page, with the examples, words and methods that it offers.

    Args:
        args: the command line of the demo.
        folder: the only one whose files are read: uploads and examples. Results for download go there, too.
    """

    def __init__(self, args: Namespace, folder: str | Path):
        settings = read_settings(args)
        self.folder = Path(folder).resolve()
        self.has_background = args.background or settings.prob_thd > 0
        # Each is an example that a browser loads.
        self.images = (find_images(args.images) or SCENES)[:MAX_SHOWN]
        # The first request is made by the page itself, before anybody has typed words.
        if not (args.classes or args.name_path or is_miniature(settings)):
            args.classes = "sky, tree, grass"
        self.classes = choose_classes(args, settings)
        self.words = ", ".join(" | ".join(words) for words in self.classes.classes)
        self.model = ClearCLIP.from_settings(settings)
        self.methods: dict[str, Method] = {settings.method.label: settings.method}
        for method in all_methods():
            # A choice of a visitor must not make the page fetch gigabytes.
            if not self._needs_download(method):
                self.methods.setdefault(method.label, method)

    def run(self, image: Any, words: Any, method_name: Any) -> PageResult:
        """Segment an image.

        Args:
            image: Gradio's dict of a file in :attr:`folder`.
            words: classes as on a command line.
            method_name: of :attr:`methods`, or any other row's.

        Raises:
            UserError: a value that cannot be meant, or that a page does not take.
        """
        path = self._path(image)
        if not isinstance(words, str) or not isinstance(method_name, str):
            raise UserError("words and method must be text")
        method = self._method(method_name)
        results = segment(self.model, path, self._classes(words), [method, build_method("CLIP")])
        return self._page_result(results, method, path)

    def _path(self, image: Any) -> Path:
        """The file of an upload or an example."""
        path = Path()
        with suppress(OSError, ValueError, TypeError, KeyError):  # it is no path
            path = Path(image["path"] if isinstance(image, dict) else "").resolve()
        if self.folder not in path.parents:
            raise UserError("no image yet; drop one into the field or choose an example")
        return path

    def _classes(self, words: str) -> ClassWords:
        if words == self.words:
            # A names file may have classes that could not be typed.
            return self.classes
        if len(words) > 100 * MAX_WORDS or words.count(",") + words.count("|") >= MAX_WORDS:
            raise UserError(f"so many words are too much for the page; give at most {MAX_WORDS}")
        return read_words(words, self.has_background)

    def _method(self, name: str) -> Method:
        """The method of a name. What a visitor types makes the page neither read a file nor ask a hub."""
        if name in self.methods:
            return self.methods[name]
        if METHOD_NAME.fullmatch(name) is None:
            raise UserError(f"{name[:80]!r} is no name of a method; choose one, such as ClearCLIP or SCLIP + ClearCLIP")
        method = build_method(name)
        if self._needs_download(method):
            raise UserError(
                f"{method.label} needs a second encoder, which a page does not fetch; start it with --model-type {name}"
            )
        return method

    def _needs_download(self, method: Method) -> bool:
        """Whether a method would load the weights of a second encoder; untrained ones are made here."""
        completed = method.completed(self.model.image_encoder.method_options)
        return "second encoder" in completed.needs and not str(completed.guide).startswith("untrained")

    def _page_result(self, results: dict[str, Segmentation], method: Method, path: Path) -> PageResult:
        result = results[method.label]
        photo = fit(result.image, SIDE)
        small = fit(result.image, SIDE // 2)
        overlays = {}
        for name, method_result in results.items():
            overlays[name] = overlay(photo, fit(method_result.labels, SIDE), method_result.colours)
        low, high = result.similarity_range
        heat_maps = []
        for title, values in result.titled_maps(small.shape[:2]):
            if len(heat_maps) == MAX_SHOWN:
                break
            heat_maps.append((heat_map(small, values, low, high), title))
        files, facts = self._write_files(result, method, path)
        return PageResult(
            overlay=np.asarray(overlays[method.label]),
            comparison=(overlays["CLIP"], overlays[method.label]),
            legend=legend_html(results, method.label),
            heat_maps=heat_maps,
            scale=scale_html(low, high),
            files=files,
            facts=facts,
        )

    def _write_files(self, result: Segmentation, method: Method, path: Path) -> tuple[list[str], dict[str, Any]]:
        """Write what can be downloaded; the name of a visitor's folder is in none of it."""
        names = ResultNames(Path(tempfile.mkdtemp(dir=self.folder)))
        stem = names.stem_for(ImageFile(path))
        result.image_name = path.name
        picture = result.save(names.picture(stem, "segmentation"))
        labels = result.save_labels(label_map_path(stem))
        settings = self.model.settings
        size = result.labels.shape
        facts = result_facts(result, path.name, settings, file_digest(path), self.model.seen_size(size), method)
        files = [picture, labels, write_facts(stem, facts)]
        return [str(file) for file in files], facts


def message_for_visitors(error: UserError, image: Any) -> str:
    """An error as HTML; the folder of an upload means nothing to its owner."""
    message = str(error)
    if isinstance(image, dict) and isinstance(image.get("path"), str):
        message = message.replace(f"{os.path.dirname(image['path'])}{os.sep}", "")  # noqa: PTH120 (any text)
    return html.escape(message)


def legend_html(results: Mapping[str, Segmentation], method: str) -> str:
    """The classes that occur, those of the largest share first: colour, name and share by each method.

    Args:
        results: of one image by the names of methods.
        method: whose shares come first; the others are what it is compared with.
    """
    columns = [results[method]]
    for name, result in results.items():
        if name != method:
            columns.append(result)
    # A class that only another method sees has a colour in the comparison, and so it has a line.
    pixels = np.stack([result.class_pixels for result in columns])
    order = np.lexsort(-pixels[::-1])
    present = [label for label in order if pixels[:, label].any()]
    lines = [_table_row('<th colspan="2">shares</th>', "th", [result.method for result in columns])]
    for label in present[:MAX_SHOWN]:
        colour = f"#{bytes(columns[0].colours[label]).hex()}"
        # Names are anybody's text, and this is HTML.
        name = html.escape(columns[0].classes[label])
        cells = f'<td><span class="swatch" style="background:{colour}"></span></td><td class="name">{name}</td>'
        shares = pixels[:, label] / columns[0].labels.size
        lines.append(_table_row(cells, "td", [f"{share:.1%}" for share in shares]))
    note = ""
    if len(present) > MAX_SHOWN:
        note += f"<p>{len(present) - MAX_SHOWN} more are in the files</p>"
    class_count = len(columns[0].classes)
    if len(present) < class_count:
        note += f"<p>{class_count - len(present)} of {class_count} classes were not found</p>"
    return f'<table class="legend">{"".join(lines)}</table>{note}'


def _table_row(first_cells: str, tag: str, texts: Sequence[str]) -> str:
    """A row of a table: HTML of its first cells, then a cell of such a tag for each text."""
    cells = [f"<{tag}>{html.escape(text)}</{tag}>" for text in texts]
    return f"<tr>{first_cells}{''.join(cells)}</tr>"


def scale_html(low: float, high: float) -> str:
    """The colour bar of the heat maps with five of its values."""
    buffer = io.BytesIO()
    Image.fromarray(colour_bar(256, 1)).save(buffer, "PNG")
    picture = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    ticks = "".join(f"<span>{value:.2f}</span>" for value in np.linspace(low, high, 5))
    caption = "<p>Cosine similarity, all maps on one scale; the number after a word is its maximum</p>"
    return f'<div class="scale">{caption}<img src="{picture}" alt="colour bar"><div class="ticks">{ticks}</div></div>'


def all_methods() -> list[Method]:
    """All registered methods and their "+ ClearCLIP" variants, each once."""
    methods: dict[str, Method] = {}
    for name in (*FAMILY, *METHODS):
        with suppress(UserError):  # a method with an option that has no default
            for method in (build_method(name), build_method(f"{name} + ClearCLIP")):
                methods.setdefault(method.label, method)
    return list(methods.values())

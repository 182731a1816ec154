"""The web page of ``demo.py --web``: for this machine's browser; nothing is sent to anyone else."""

from __future__ import annotations

import html
import os
import socket
import tempfile
from argparse import Namespace
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr

from clearclip.commands.model_arguments import (
    DRAWN_ONLY,
    SCENES,
    choose_classes,
    find_images,
    free_stem,
    is_miniature,
    read_settings,
    read_words,
    segment,
    write_result,
)
from clearclip.methods import METHODS, Method, build_method
from clearclip.model import ClearCLIP
from clearclip.results.table_definitions import FAMILY
from clearclip.utils.errors import UserError
from clearclip.visualize import fit, heat_map, overlay

#: Example images, classes in the legend, and heat maps, at most.
MAX_SHOWN = 48
#: Words that one request may have encoded.
MAX_WORDS = 100
#: Longer side of the pictures on the page, in pixels.
SIDE = 900


class Page:
    """What the page computes; its files for download go to ``folder``."""

    def __init__(self, args: Namespace, folder: Path):
        settings = read_settings(args)
        self.folder, self.background = folder.resolve(), args.background or settings.prob_thd > 0
        self.methods = {method.label: method for method in (settings.method, *all_methods())}
        self.images = (find_images(args.images) or SCENES)[:MAX_SHOWN]
        args.classes = args.classes or (None if is_miniature(settings) or args.name_path else "sky, tree, grass")
        self.classes = choose_classes(args, settings)
        self.words = ", ".join(" | ".join(words) for words in self.classes.classes)
        self.model = ClearCLIP.from_settings(settings)

    def run(self, image: Any, words: Any, method: Any) -> tuple:
        """All outputs of the page, from values as a browser or anything else sends them (``image`` is Gradio's dict
        of a file); a UserError becomes an error that the page shows.
        """
        path = Path()
        try:
            with suppress(OSError, ValueError, TypeError, KeyError):  # it is no path
                path = Path(image["path"] if isinstance(image, dict) else "").resolve()
            if self.folder not in path.parents:  # where uploads and examples are; no other file is read
                raise UserError("no image yet; drop one into the field or choose an example")
            if not isinstance(words, str) or not isinstance(method, str):
                raise UserError("words and method must be text")
            if words == self.words:
                classes = self.classes
            elif len(words) > 100 * MAX_WORDS or words.count(",") + words.count("|") >= MAX_WORDS:
                raise UserError(f"so many words are too much for the page; give at most {MAX_WORDS}")
            else:
                classes = read_words(words, self.background)
            # Any row's name can be typed, not only those listed.
            used = self.methods.get(method) or build_method(method)
            results = segment(self.model, path, classes, [used, build_method("CLIP")])
        except UserError as error:  # Gradio shows messages as HTML; the folder of an upload means nothing to its owner
            told = html.escape(str(error).replace(f"{path.parent}{os.sep}", ""))
            raise gr.Error(told, duration=None, title="This did not work", print_exception=False) from error
        result, stem = results[used.label], free_stem(Path(tempfile.mkdtemp(dir=self.folder)), path, set())
        files = [str(file) for file in write_result(stem, result, path.name, self.model.settings.prob_thd)]
        photo, small = fit(result.image, SIDE), fit(result.image, SIDE // 2)
        labels = {name: fit(one.labels, SIDE) for name, one in results.items()}
        pair = [overlay(photo, labels[name], result.colours) for name in ("CLIP", used.label)]
        maps = islice(result.titled_maps(small.shape[:2]), MAX_SHOWN)
        heat = [(heat_map(small, values, *result.similarity_range), title) for title, values in maps]
        largest = sorted(enumerate(result.shares.items()), key=lambda item: -item[1][1])[:MAX_SHOWN]
        names = {k: f"{name} {share:.1%}" for k, (name, share) in largest}
        masks = [(0.6 * (labels[used.label] == k), name) for k, name in names.items()]
        colours = {name: f"#{bytes(result.colours[k]).hex()}" for k, name in names.items()}
        annotated = gr.update(value=(photo, masks), color_map=colours)
        return annotated, gr.update(value=pair, label=f"CLIP | {used.label}"), heat, files


def all_methods() -> list[Method]:
    """All registered methods and their "+ ClearCLIP" variants, each once."""
    found: dict[str, Method] = {}
    for name in (*FAMILY, *METHODS):
        with suppress(UserError):  # a method with an option that has no default
            for method in (build_method(name), build_method(f"{name} + ClearCLIP")):
                found.setdefault(method.label, method)
    return list(found.values())


def build(page: Page) -> gr.Blocks:
    """The page; it opens with the first example segmented."""
    with gr.Blocks(title="ClearCLIP", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        drawn = f" {DRAWN_ONLY[0].upper()}{DRAWN_ONLY[1:]}." if is_miniature(page.model.settings) else ""
        gr.Markdown(
            f"# ClearCLIP · {page.model.label}\nDrop an image, type what to look for, and see where it is.{drawn}"
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                kind = {"type": "filepath", "sources": ["upload", "clipboard"]}
                image = gr.Image(str(page.images[0]), label="Image", height=300, elem_id="image", **kind)
                what = "Classes, with commas between them; | between the words of one"
                text = gr.Textbox(page.words, label=what, lines=2, elem_id="words")
                method = gr.Dropdown(list(page.methods), label="Method", allow_custom_value=True, elem_id="method")
                button = gr.Button("Segment", variant="primary", elem_id="segment")
            with gr.Column(scale=3, min_width=300):
                with gr.Tab("Result"):
                    result = gr.AnnotatedImage(show_label=False, format="png", elem_id="overlay")
                with gr.Tab("Against CLIP"):
                    slider = gr.ImageSlider(interactive=False, format="png", elem_id="slider")
                with gr.Tab("Heat maps"):
                    what = "Cosine similarity, all maps on one scale; the number after a word is its maximum"
                    heat = gr.Gallery(label=what, columns=3, object_fit="contain", format="png", elem_id="heat")
                with gr.Tab("Files"):
                    what = "The picture, the label map (grey values are class ids), and what the ids mean"
                    files = gr.Files(label=what, interactive=False, elem_id="files")
        examples = gr.Examples([str(path) for path in page.images], image, examples_per_page=12)
        # Gradio would open uploads itself, by any program that Pillow knows. One request at a time.
        how = {"inputs": [image, text, method], "outputs": [result, slider, heat, files], "preprocess": False}
        gr.on([blocks.load, button.click, text.submit], page.run, concurrency_id="run", **how)
        examples.load_input_event.then(page.run, concurrency_id="run", **how)
    return blocks


def serve(args: Namespace) -> int:
    """Serve the page until it is interrupted.

    Raises:
        UserError: the port is taken, or the model cannot be loaded.
    """
    try:  # before a model is loaded
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", args.port or 0))
    except (OSError, OverflowError) as error:
        raise UserError(f"the page cannot be served on port {args.port}: {error}; give --port another one") from error
    with tempfile.TemporaryDirectory(prefix="clearclip-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and results are deleted when the page stops
        blocks = build(Page(args, Path(folder)))
        # Fonts of the system: others would be fetched from elsewhere.
        theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        how = {"server_name": "127.0.0.1", "server_port": args.port or None, "max_file_size": "25mb", "theme": theme}
        how |= {"prevent_thread_lock": True, "show_error": True, "quiet": True, "ssr_mode": False}
        _, address, _ = blocks.launch(**how)
        print(f"page: {address}  (stop with Ctrl-C)", flush=True)
        blocks.block_thread()
    return 0

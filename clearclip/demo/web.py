"""The web page of ``demo.py --web``: for this machine's browser; nothing is sent to anyone else."""

from __future__ import annotations

import functools
import html
import os
import tempfile
import warnings
from argparse import Namespace
from itertools import islice
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from clearclip.demo import models
from clearclip.demo.inputs import SCENES, choose_classes, find_images, read_words, with_background
from clearclip.demo.outputs import hex_colour, write_result
from clearclip.errors import UserError
from clearclip.images import read_image
from clearclip.methods import build_method
from clearclip.methods.family import for_miniature
from clearclip.model import ClearCLIP
from clearclip.pictures import heat_maps, overlay_picture, share_text
from clearclip.segmentation import Segmentation
from clearclip.settings import ModelSettings

MAX_PIXELS = 50_000_000
#: Example images, classes in the legend, and heat maps, at most.
MAX_SHOWN = 48
#: Longer side of the pictures on the page, in pixels.
SIDE = 900
CLIP = "CLIP ViT-B/16"


class Page:
    """What the page computes; its files for download go to ``folder``. Raises a UserError as the command does."""

    def __init__(self, args: Namespace, folder: Path):
        self.folder = folder
        options, bundled = models.read_options(args)
        self.prob_thd = ModelSettings.from_options(options).prob_thd
        self.methods = {method.label: method for method in (options["method"], *models.all_methods())}
        self.images = (find_images(args.images) or SCENES)[:MAX_SHOWN]
        self.classes = choose_classes(args, bundled or not args.images, args.background or self.prob_thd > 0)
        self.words = ", ".join(self.classes.names)
        others = {name: value for name, value in options.items() if name not in models.NAMING}
        name = " ".join(str(options[name]) for name in models.NAMING if name in options) or CLIP
        both = {"miniature": {**others, "model_name": "miniature"}, CLIP: others}
        self.models = both if bundled else {name: options}
        self.load = functools.cache(lambda name: ClearCLIP.from_pretrained(**self.models[name]))
        self.load(next(iter(self.models)))

    def run(self, path: str | None, words: str, method: str, prob_thd: float, model: str) -> tuple:
        """All outputs of the page; a UserError becomes an error that the page shows, and a warning a warning."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                outputs = self._run(path, words or "", method, prob_thd, model)
        except UserError as error:
            # Gradio shows messages as HTML; the folder of an upload means nothing to its owner.
            message = html.escape(str(error).replace(f"{Path(path or '').parent}{os.sep}", ""))
            raise gr.Error(message, duration=None, title="This did not work") from error
        for warning in caught:
            if issubclass(warning.category, UserWarning):
                gr.Warning(html.escape(str(warning.message)))
        return outputs

    def _run(self, path: str | None, words: str, method: str, prob_thd: float, model: str) -> tuple:
        if not path:
            raise UserError("no image yet; drop one into the field or choose an example")
        same = words == self.words  # then words may have synonyms
        classes = with_background(self.classes, prob_thd > 0) if same else read_words(words, prob_thd > 0)
        used = self.methods.get(method) or build_method(method)
        used = for_miniature(used) if model == "miniature" else used
        loaded, image = self.load(model), read_image(path)
        results = models.segment(loaded, image, classes, [used, build_method("CLIP")], prob_thd)
        result, stem = results[used.label], Path(tempfile.mkdtemp(dir=self.folder)) / Path(path).stem
        facts = {"image": Path(path).name, "model": loaded.weights.label, "method": used.label, "prob_thd": prob_thd}
        files = [str(file) for file in write_result(stem, result, **facts)]
        pair = overlay_picture(results["CLIP"], SIDE), overlay_picture(result, SIDE)
        maps = [(picture, title) for title, picture in islice(heat_maps(result, SIDE // 2), MAX_SHOWN)]
        return annotated(result, pair[1].size), gr.update(value=pair, label=f"CLIP | {used.label}"), maps, files


def annotated(result: Segmentation, size: tuple[int, int]) -> dict:
    """The update of a ``gr.AnnotatedImage``, (width, height) pixels: a mask for each class, the largest first."""
    labels = np.asarray(Image.fromarray(result.labels).resize(size, Image.Resampling.NEAREST))
    order = sorted(range(len(result.classes)), key=lambda label: -result.class_pixels[label])[:MAX_SHOWN]
    names = {k: f"{result.classes[k]} {share_text(result.class_pixels[k] / result.labels.size)}" for k in order}
    value = Image.fromarray(result.image).resize(size), [(0.6 * (labels == k), name) for k, name in names.items()]
    return gr.update(value=value, color_map={name: hex_colour(result, k) for k, name in names.items()})


def build(page: Page) -> gr.Blocks:
    """The page; it opens with the first example segmented."""
    with gr.Blocks(title="ClearCLIP", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.Markdown("# ClearCLIP\nDrop an image, type what to look for, and see where it is.")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                kind = {"type": "filepath", "sources": ["upload", "clipboard"]}
                image = gr.Image(str(page.images[0]), label="Image", height=300, elem_id="image", **kind)
                # This package reads more kinds of images than Gradio, and says what is wrong with the others.
                image.preprocess = lambda payload: payload.path if payload else None
                text = gr.Textbox(page.words, label="Words, separated by commas", lines=2, elem_id="words")
                # Any row's name can be typed, not only those listed.
                method = gr.Dropdown(list(page.methods), label="Method", allow_custom_value=True, elem_id="method")
                model = gr.Dropdown(list(page.models), label="Model", elem_id="model")
                below = "pixels whose largest probability is below it become background"
                prob_thd = gr.Slider(0, 1, page.prob_thd, step=0.01, label="Threshold", info=below)
                button = gr.Button("Segment", variant="primary", elem_id="segment")
            with gr.Column(scale=3, min_width=300):
                with gr.Tab("Result"):
                    overlay = gr.AnnotatedImage(show_label=False, format="png", elem_id="overlay")
                with gr.Tab("Against CLIP"):
                    slider = gr.ImageSlider(interactive=False, format="png", elem_id="slider")
                with gr.Tab("Heat maps"):
                    gr.Markdown("Cosine similarity with each word, all on one scale; the number is the word's maximum.")
                    kind = {"object_fit": "contain", "format": "png", "interactive": False}
                    heat = gr.Gallery(show_label=False, columns=3, elem_id="heat", **kind)
                with gr.Tab("Files"):
                    gr.Markdown("The picture, the label map (grey values are class ids), and what the ids mean.")
                    files = gr.Files(show_label=False, interactive=False, elem_id="files")
        examples = gr.Examples([str(path) for path in page.images], image, examples_per_page=12)
        inputs, outputs = [image, text, method, prob_thd, model], [overlay, slider, heat, files]
        gr.on([blocks.load, button.click, text.submit], page.run, inputs, outputs, concurrency_id="run")
        examples.load_input_event.then(page.run, inputs, outputs, concurrency_id="run")  # one at a time, both
    return blocks


def serve(args: Namespace) -> int:
    """Serve the page until it is interrupted.

    Raises:
        UserError: gradio is too old, the port is taken, or the model cannot be loaded.
    """
    if int(gr.__version__.split(".")[0]) < 6:  # whose pages load a script from elsewhere
        raise UserError(f"gradio {gr.__version__} is too old for the page; update it: pip install -U gradio")
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above this and refuses above twice as much
    with tempfile.TemporaryDirectory(prefix="clearclip-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and results are deleted when the page stops
        blocks = build(Page(args, Path(folder)))
        # Fonts of the system: others would be fetched from elsewhere.
        theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        where = {"server_name": "127.0.0.1", "server_port": args.port, "share": args.share}
        how = {"max_file_size": "25mb", "show_error": True, "quiet": True, "ssr_mode": False, "theme": theme}
        try:
            _, local, public = blocks.launch(prevent_thread_lock=True, **where, **how)
        except (OSError, OverflowError) as error:
            raise UserError(f"the page cannot be served on port {args.port or 7860}: {error}; try --port") from error
        print(f"page: {local}  (stop with Ctrl-C)", flush=True)
        if public:
            print(f"public for a week: {public}", flush=True)
        blocks.block_thread()
    return 0

"""The web page of ``demo.py --web``: for this machine's browser; nothing is sent to anyone else."""

from __future__ import annotations

import html
import os
import tempfile
from argparse import Namespace
from itertools import islice
from pathlib import Path

import gradio as gr

from clearclip.commands import demo_models as models
from clearclip.commands.demo_inputs import SCENES, choose_classes, find_images, read_words
from clearclip.commands.demo_outputs import write_result
from clearclip.methods import build_method
from clearclip.model import ClearCLIP
from clearclip.utils.errors import UserError
from clearclip.utils.images import read_image
from clearclip.visualize import fit, heat_map, overlay

#: Example images, classes in the legend, and heat maps, at most.
MAX_SHOWN = 48
#: Longer side of the pictures on the page, in pixels.
SIDE = 900


class Page:
    """What the page computes; its files for download go to ``folder``."""

    def __init__(self, args: Namespace, folder: Path):
        settings, bundled = models.read_options(args)
        self.folder, self.background = folder, args.background or settings.prob_thd > 0
        self.methods = {method.label: method for method in (settings.method, *models.all_methods())}
        self.images = (find_images(args.images) or SCENES)[:MAX_SHOWN]
        self.classes = choose_classes(args, bundled or not args.images, self.background)
        self.words = ", ".join(self.classes.names)
        self.model = ClearCLIP.from_settings(settings)

    def run(self, path: str | None, words: str, method: str) -> tuple:
        """All outputs of the page; a UserError becomes an error that the page shows."""
        try:
            if not path:
                raise UserError("no image yet; drop one into the field or choose an example")
            # The words at the start may have synonyms. Any row's name can be typed, not only those listed.
            classes = self.classes if words == self.words else read_words(words or "", self.background)
            used = self.methods.get(method) or build_method(method)
            results = models.segment(self.model, read_image(path), classes, [used, build_method("CLIP")])
        except UserError as error:  # Gradio shows messages as HTML; the folder of an upload means nothing to its owner
            told = html.escape(str(error).replace(f"{Path(path or '').parent}{os.sep}", ""))
            raise gr.Error(told, duration=None, title="This did not work") from error
        result, stem = results[used.label], Path(tempfile.mkdtemp(dir=self.folder)) / Path(path).stem
        facts = {"model": self.model.weights.label, "method": used.label, "prob_thd": self.model.settings.prob_thd}
        files = [str(file) for file in write_result(stem, result, image=Path(path).name, **facts)]
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


def build(page: Page) -> gr.Blocks:
    """The page; it opens with the first example segmented."""
    with gr.Blocks(title="ClearCLIP", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.Markdown("# ClearCLIP\nDrop an image, type what to look for, and see where it is.")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                kind = {"type": "filepath", "sources": ["upload", "clipboard"]}
                # This package reads more kinds of images than Gradio, and says what is wrong with the others. Set for
                # the class, since Gradio makes a new field when an example is chosen.
                gr.Image.preprocess = lambda self, payload: payload.path if payload else None
                image = gr.Image(str(page.images[0]), label="Image", height=300, elem_id="image", **kind)
                text = gr.Textbox(page.words, label="Words, separated by commas", lines=2, elem_id="words")
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
        inputs, outputs = [image, text, method], [result, slider, heat, files]
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
    with tempfile.TemporaryDirectory(prefix="clearclip-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and results are deleted when the page stops
        blocks = build(Page(args, Path(folder)))
        # Fonts of the system: others would be fetched from elsewhere.
        theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        how = {"server_name": "127.0.0.1", "server_port": args.port, "quiet": True, "ssr_mode": False, "theme": theme}
        try:
            _, address, _ = blocks.launch(prevent_thread_lock=True, show_error=True, max_file_size="25mb", **how)
        except (OSError, OverflowError) as error:
            raise UserError(f"the page cannot be served on port {args.port or 7860}: {error}; try --port") from error
        print(f"page: {address}  (stop with Ctrl-C)", flush=True)
        blocks.block_thread()
    return 0

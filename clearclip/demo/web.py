"""The web page of ``demo.py --web``: for this machine's browser, without a word to anyone else."""

from __future__ import annotations

import html
import os
import tempfile
import threading
import warnings
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from clearclip.demo.command import SCENES, facts, load, segment, wants_miniature
from clearclip.demo.inputs import read_words
from clearclip.demo.outputs import Outputs
from clearclip.demo.rows import ROWS, method_of, use_method
from clearclip.errors import UserError
from clearclip.images import UNKNOWN, read_image
from clearclip.miniature import BENCHMARK, CLASSES
from clearclip.model import ClearCLIP
from clearclip.pictures import heat_maps, overlay_picture, share_text
from clearclip.segmentation import Segmentation

MAX_FILE = "25mb"
MAX_PIXELS = 50_000_000
#: The page shows the heat maps of so many words at most.
MAX_HEAT_MAPS = 48
SIDE = 900

CSS = """
.legend { display: flex; flex-wrap: wrap; gap: .35rem 1.1rem; }
.legend span { display: inline-flex; align-items: center; gap: .4rem; overflow-wrap: anywhere; }
.legend i { width: 1.1em; height: 1.1em; border: 1px solid #666; flex: none; }
.legend small { opacity: .7; }
"""


def import_gradio() -> ModuleType:
    """Gradio, with its telemetry off.

    Raises:
        UserError: it is not installed, or too old.
    """
    # Read when gradio is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise UserError("the web page needs gradio; install it: pip install gradio") from error
    if int(gradio.__version__.split(".")[0]) < 6:  # whose pages load a script from elsewhere
        raise UserError(f"gradio {gradio.__version__} is too old for the page; update it: pip install -U gradio")
    return gradio


class Models:
    """The models that the page offers, each loaded when it is first used."""

    def __init__(self, args: Namespace):
        self.loaded: dict[str, ClearCLIP] = {}
        plain = Namespace(**{**vars(args), "clip_type": None, "vit_type": None, "model": None, "pretrained": None})
        clip = Namespace(**{**vars(plain), "clip_type": "CLIP"})
        miniature = Namespace(**{**vars(plain), "model": "miniature"})
        own = " ".join(filter(None, (args.clip_type, args.vit_type, args.model, args.pretrained)))
        first = {"miniature": miniature} if wants_miniature(args) else {own or "CLIP": args}
        self.arguments = {**first, "miniature": miniature, "CLIP ViT-B/16": clip}

    @property
    def names(self) -> list[str]:
        """For people, the default first."""
        return list(self.arguments)

    def get(self, name: str) -> ClearCLIP:
        """A model by its name."""
        if name not in self.loaded:
            self.loaded[name] = load(self.arguments[name])
        return self.loaded[name]


class Page:
    """What the page computes.

    Args:
        args: of the command line.
        gradio: the module.
        folder: for the files that can be downloaded.
    """

    def __init__(self, args: Namespace, gradio: ModuleType, folder: Path):
        self.args = args
        self.gradio = gradio
        self.folder = folder
        self.models = Models(args)
        self.lock = threading.Lock()

    def run(self, path: str | None, words: str, row: str, prob_thd: float, background: bool, name: str) -> tuple:
        """All outputs of the page; a fault becomes an error that the page shows."""
        try:
            with self.lock, warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                outputs = self._run(path, words, row, prob_thd, background, name)
        except UserError as error:
            raise self.gradio.Error(html.escape(str(error)), duration=None, title="This did not work") from error
        for warning in caught:
            self.gradio.Warning(html.escape(str(warning.message)))
        return outputs

    def _run(self, path: str | None, words: str, row: str, prob_thd: float, background: bool, name: str) -> tuple:
        if not path:
            raise UserError("no image yet; drop one into the field or choose an example")
        check_upload(path)
        image, classes = read_image(path), read_words(words or "", background or prob_thd > 0)
        model = self.models.get(name)
        results = {
            each: segment(use_method(model, method_of(each)), image, classes, prob_thd)
            for each in dict.fromkeys((row, "CLIP", "ClearCLIP"))
        }
        result = results[row]
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        outputs = Outputs(folder, [])
        noted = facts(Namespace(model_type=row, ignore_residual=False, prob_thd=prob_thd), model, Path(Path(path).name))
        stem = outputs.stem(Path(path))
        files = [outputs.picture(stem, "segmentation", result.picture()), *outputs.labels(stem, result, noted)]
        return (
            overlay_picture(result, SIDE),
            legend(result),
            (overlay_picture(results["CLIP"], SIDE), overlay_picture(results["ClearCLIP"], SIDE)),
            [(picture, title) for title, picture in self._heat_maps(result)],
            [str(file) for file in files],
        )

    @staticmethod
    def _heat_maps(result: Segmentation) -> list[tuple[str, Image.Image]]:
        return [pair for pair, _ in zip(heat_maps(result, SIDE // 2), range(MAX_HEAT_MAPS), strict=False)]


def check_upload(path: str) -> None:
    """Raise a UserError for a file that is no image, or one of too many pixels, before it is decoded."""
    try:
        with Image.open(path) as opened:
            width, height = opened.size
    except Image.DecompressionBombError:
        width = height = MAX_PIXELS
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{Path(path).name} cannot be read: {UNKNOWN}") from error
    if width * height > MAX_PIXELS:
        raise UserError(f"{Path(path).name} has more than {MAX_PIXELS // 10**6} million pixels; make it smaller")


def legend(result: Segmentation) -> str:
    """The legend as HTML: colour, name and share, the largest first."""
    order = sorted(range(len(result.classes)), key=lambda label: -result.class_pixels[label])
    entries = []
    for label in order:
        colour = "rgb({}, {}, {})".format(*result.colours[label])
        share = share_text(result.class_pixels[label] / result.labels.size)
        name = html.escape(result.classes[label])
        entries.append(f'<span><i style="background: {colour}"></i>{name} <small>{share}</small></span>')
    return f'<div class="legend">{"".join(entries)}</div>'


def build(page: Page) -> Any:
    """The page as ``gradio.Blocks``."""
    gr, models = page.gradio, page.models
    words = "sky, hill, tree, horse, grass" if models.names[0] != "miniature" else ", ".join(CLASSES)
    with gr.Blocks(title="ClearCLIP", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.Markdown("# ClearCLIP\nDrop an image, type what to look for, and see where it is.")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                image = gr.Image(
                    label="Image", type="filepath", sources=["upload", "clipboard"], height=300, elem_id="image"
                )
                # This package reads more kinds of images than Gradio, and says what is wrong with the others.
                image.preprocess = lambda payload: payload.path if payload else None
                text = gr.Textbox(words, label="Words, separated by commas", lines=2, max_lines=8, elem_id="words")
                row = gr.Dropdown(list(ROWS), value=page.args.model_type, label="Method", elem_id="method")
                model = gr.Dropdown(models.names, value=models.names[0], label="Model", elem_id="model")
                prob_thd = gr.Slider(
                    0,
                    1,
                    value=page.args.prob_thd,
                    step=0.01,
                    label="Threshold",
                    info="what is less probable becomes background",
                )
                background = gr.Checkbox(page.args.background, label='Add the class "background"')
                button = gr.Button("Segment", variant="primary", elem_id="segment")
            with gr.Column(scale=3, min_width=400):
                with gr.Tab("Result"):
                    overlay = gr.Image(
                        label="Overlay",
                        interactive=False,
                        format="png",
                        elem_id="overlay",
                        buttons=["download", "fullscreen"],  # the third one would send the picture to Gradio's makers
                    )
                with gr.Tab("CLIP | ClearCLIP"):
                    slider = gr.ImageSlider(
                        label="left CLIP, right ClearCLIP", interactive=False, format="png", elem_id="slider"
                    )
                with gr.Tab("Heat maps"):
                    gr.Markdown("Cosine similarity with each word, all on one scale; the number is the word's maximum.")
                    heat = gr.Gallery(
                        show_label=False,
                        columns=3,
                        object_fit="contain",
                        format="png",
                        interactive=False,
                        elem_id="heat",
                    )
                with gr.Tab("Files"):
                    files = gr.File(
                        label="Picture, label map (grey values are class ids), what the ids mean",
                        file_count="multiple",
                        interactive=False,
                        elem_id="files",
                    )
                key = gr.HTML(elem_id="legend")
        inputs = [image, text, row, prob_thd, background, model]
        outputs = [overlay, key, slider, heat, files]
        button.click(page.run, inputs, outputs, concurrency_limit=1)
        text.submit(page.run, inputs, outputs, concurrency_limit=1)
        scenes = [str(BENCHMARK / "images" / "val" / f"{scene}.png") for scene in SCENES]
        gr.Examples(
            [[scene, ", ".join(CLASSES), "miniature"] for scene in scenes],
            [image, text, model],
            label="Examples, for the miniature",
            cache_examples=False,
        )
    return blocks


def serve(args: Namespace) -> int:
    """Serve the page until it is interrupted.

    Raises:
        UserError: gradio is missing, the port is taken, or the model cannot be loaded.
    """
    if args.port is not None and not 1 <= args.port <= 65535:
        raise UserError(f"--port {args.port} is no port; give a number from 1024 to 65535")
    gr = import_gradio()
    with tempfile.TemporaryDirectory(prefix="clearclip-") as folder:
        # What is uploaded and made goes when the page does.
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = Page(args, gr, Path(folder))
        page.models.get(page.models.names[0])
        blocks = build(page)
        try:
            _, local, public = blocks.launch(
                server_name="127.0.0.1",
                server_port=args.port,
                share=args.share,
                max_file_size=MAX_FILE,
                show_error=True,
                quiet=True,
                ssr_mode=False,
                prevent_thread_lock=True,
                css=CSS,
                # Fonts of the system: others would be fetched from elsewhere.
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            )
        except OSError as error:
            raise UserError(f"the page cannot be served on port {args.port or 7860}: {error}; try --port") from error
        print(f"page: {local}  (stop with Ctrl-C)", flush=True)
        if public:
            print(f"public for a week: {public}", flush=True)
        blocks.block_thread()
    return 0

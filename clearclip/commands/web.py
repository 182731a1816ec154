"""The web page of ``demo.py --web``: for this machine's browser; nothing is sent to anyone else."""

from __future__ import annotations

import os
import socket
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any, get_type_hints

import gradio as gr

from clearclip.commands.model_arguments import DRAWN_ONLY, is_miniature
from clearclip.commands.page_results import PageModel, PageResult, message_for_visitors
from clearclip.utils.errors import UserError

#: Seconds after which an error leaves the page by itself; the next request takes it away at once.
ERROR_SECONDS = 20
CLEAR_ERRORS = "() => document.querySelectorAll('.toast-close').forEach((button) => button.click())"
STYLE = """
.legend { width: 100%; border-collapse: collapse; margin: 0; }
.legend, .legend tr, .legend th, .legend td { border: none !important; }
.legend th, .legend td { padding: .1em 0 .1em .5em; font-weight: normal; vertical-align: baseline; }
.legend th, .legend td:nth-child(n+3) { text-align: right; font-variant-numeric: tabular-nums; }
.legend th:first-child { text-align: left; padding-left: 0; }
.legend td:first-child { padding-left: 0; }
.legend td:nth-child(n+4) { opacity: .7; }
.legend .swatch { display: inline-block; width: 1em; height: 1em; border: 1px solid #595959; vertical-align: -.1em; }
.legend .name { max-width: 9em; overflow-wrap: break-word; }
.scale img { width: 100%; height: 1em; }
.scale .ticks { display: flex; justify-content: space-between; }
"""


def build_page(page: PageModel) -> gr.Blocks:
    """The page; it opens with the first example segmented."""
    with gr.Blocks(title="ClearCLIP", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.Markdown(_heading(page))
        with gr.Row():
            with gr.Column(scale=3, min_width=280):
                inputs, button = _input_widgets(page)
            with gr.Column(scale=5, min_width=300):
                overlay, slider, scale, heat_maps, files = _pictures()
            with gr.Column(scale=2, min_width=230):
                legend = gr.HTML(elem_id="legend", container=True)
        image, words, _ = inputs
        examples = gr.Examples([str(path) for path in page.images], image, examples_per_page=12)

        def show(image: Any, words: Any, method: Any) -> tuple:
            result = _run(page, image, words, method)
            comparison = gr.update(value=result.comparison, label=f"CLIP | {method}")
            return result.overlay, comparison, result.legend, result.scale, result.heat_maps, result.files

        outputs = [overlay, slider, legend, scale, heat_maps, files]
        # Gradio would open uploads itself, by any program that Pillow knows. One request at a time.
        options = {"inputs": inputs, "outputs": outputs, "preprocess": False, "concurrency_id": "segment"}
        options |= {"api_visibility": "private", "show_progress_on": [overlay]}
        gr.on([button.click, words.submit], js=CLEAR_ERRORS, api_visibility="private")
        gr.on([blocks.load, button.click, words.submit], show, **options)
        examples.load_input_event.then(None, js=CLEAR_ERRORS, api_visibility="private").then(show, **options)
        _add_endpoint(page)
    return blocks


def _heading(page: PageModel) -> str:
    heading = f"# ClearCLIP · {page.model.label}\nDrop an image, type what to look for, and see where it is."
    if is_miniature(page.model.settings):
        heading += f" {DRAWN_ONLY[0].upper()}{DRAWN_ONLY[1:]}."
    return heading


def _input_widgets(page: PageModel) -> tuple[list[gr.components.Component], gr.Button]:
    """Image, words and method, and the button."""
    image = gr.Image(
        str(page.images[0]),
        label="Image",
        height=220,
        elem_id="image",
        type="filepath",
        sources=["upload", "clipboard"],
    )
    words_label = "Classes, with commas between them; | between the words of one"
    words = gr.Textbox(page.words, label=words_label, lines=2, elem_id="words")
    method_names = list(page.methods)
    method = gr.Dropdown(method_names, value=method_names[0], label="Method", allow_custom_value=True, elem_id="method")
    return [image, words, method], gr.Button("Segment", variant="primary", elem_id="segment")


def _pictures() -> tuple[gr.components.Component, ...]:
    """The tabs with the results."""
    with gr.Tab("Result"):
        overlay = gr.Image(
            label="Overlay", show_label=False, format="png", elem_id="overlay", interactive=False, height=520
        )
    with gr.Tab("Against CLIP"):
        slider = gr.ImageSlider(interactive=False, format="png", elem_id="slider", max_height=520)
    with gr.Tab("Heat maps"):
        scale = gr.HTML(elem_id="scale")
        # A label would lie over the first pictures; the scale has the caption.
        heat_maps = gr.Gallery(show_label=False, columns=3, object_fit="contain", format="png", elem_id="heat")
    with gr.Tab("Files"):
        label = "The picture, the label map (pixels are class ids), and what the ids mean"
        files = gr.Files(label=label, interactive=False, elem_id="files")
    return overlay, slider, scale, heat_maps, files


def _run(page: PageModel, image: Any, words: Any, method: Any) -> PageResult:
    """A request; a UserError becomes an error that the page shows and that a program receives."""
    try:
        return page.run(image, words, method)
    except UserError as error:
        message = message_for_visitors(error, image)  # Gradio shows messages as HTML
        title = "This did not work"
        raise gr.Error(message, duration=ERROR_SECONDS, title=title, print_exception=False) from error


def _add_endpoint(page: PageModel) -> None:
    """The endpoint for programs; docs/use_the_result.md has examples."""

    def segment(image: gr.FileData, words: str, method: str = next(iter(page.methods))) -> tuple[dict, gr.FileData]:
        """Segment an image by words.

        Args:
            image: the image file.
            words: classes, with commas between them; | between the words of one.
            method: name of the method, such as ClearCLIP.

        Returns:
            What was found (classes with id, name, colour, share), and the label map, a PNG whose pixels are class ids.
        """
        result = _run(page, image.model_dump() if isinstance(image, gr.FileData) else image, words, method)
        labels = next(file for file in result.files if file.endswith("_labels.png"))
        return result.facts, gr.FileData(path=labels, orig_name=Path(labels).name)

    # Gradio reads two results from the type itself, and one from its name, which annotations are in this file.
    segment.__annotations__ = get_type_hints(segment)
    gr.api(segment, api_name="segment", concurrency_id="segment")


def serve(args: Namespace) -> int:
    """Serve the page until it is interrupted.

    Raises:
        UserError: the port is taken, or the model cannot be loaded.
    """
    try:  # before a model is loaded
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", args.port or 0))
    except (OSError, OverflowError) as error:
        raise UserError(f"the page cannot be served on port {args.port}: {error}; give --port another one") from error
    with tempfile.TemporaryDirectory(prefix="clearclip-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and results are deleted when the page stops
        blocks = build_page(PageModel(args, Path(folder)))
        _, address, _ = blocks.launch(
            server_name="127.0.0.1",
            server_port=args.port or None,
            **launch_options(),
        )
        print(f"page: {address}  (stop with Ctrl-C)", flush=True)
        blocks.block_thread()
    return 0


def launch_options() -> dict[str, Any]:
    """How the page is served here and in a Space."""
    # Fonts of the system: others would be fetched from elsewhere.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return {
        "theme": theme,
        "css": STYLE,
        "max_file_size": "25mb",
        "prevent_thread_lock": True,
        "show_error": True,
        "quiet": True,
        "ssr_mode": False,
    }

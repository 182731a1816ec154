"""A Space of Hugging Face: the page of ``demo.py --web``, for everybody.

Settings are the Space's variables: MODEL and PRETRAINED (default: the miniature), CLASSES.
"""

import os
import tempfile

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from clearclip.commands.demo_parser import demo_parser
from clearclip.commands.page_results import PageModel
from clearclip.commands.web import build_page, launch_options


def page_arguments() -> list[str]:
    """The command line of the demo that the Space's variables mean."""
    arguments = ["--web"]
    for variable, option in (("MODEL", "--model"), ("PRETRAINED", "--pretrained"), ("CLASSES", "--classes")):
        if os.environ.get(variable):
            arguments += [option, os.environ[variable]]
    return arguments


def main() -> None:
    """Serve the page until the Space is stopped."""
    folder = tempfile.mkdtemp(prefix="clearclip-")
    os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and results
    blocks = build_page(PageModel(demo_parser().parse_args(page_arguments()), folder))
    # A Space says by GRADIO_SERVER_NAME and GRADIO_SERVER_PORT where it listens.
    _, address, _ = blocks.launch(**launch_options())
    print(f"page: {address}", flush=True)
    blocks.block_thread()


if __name__ == "__main__":
    main()

"""Run demo.ipynb on the miniature and keep its outputs, with pictures small enough for the repository."""

import base64
import io
import sys
import tempfile
from pathlib import Path

from clearclip.commands.command_line import CommandParser, run_command
from clearclip.utils.errors import UserError

NOTEBOOK = Path(__file__).resolve().parent.parent / "demo.ipynb"
SIDE = 1000  # pixels


def small(picture: str) -> str:
    """A PNG, base64, no wider than SIDE and with few colours."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
        image = opened.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.quantize(96).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    """Run it in an empty folder and write it back."""
    CommandParser(prog="run_notebook.py", description=__doc__).parse_args()
    try:
        import nbclient
        import nbformat
    except ImportError as error:
        raise UserError(f"notebooks need nbclient ({error}); install it: pip install nbclient ipykernel") from error
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data = {"image/png": small(output.data["image/png"]), "text/plain": output.data["text/plain"]}
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(run_command(main))

"""What ``make demo`` runs: the bundled miniature with CLIP and with ClearCLIP: mIoU, workbook and picture."""

import sys
from pathlib import Path

from clearclip.commands.command_line import CommandParser, run_command

ROOT = Path(__file__).resolve().parent.parent
SHOWN = 2  # the first images of the benchmark, as they come


def main() -> None:
    """Evaluate both in one pass and show them side by side."""
    CommandParser(prog="tools/tour.py", description=__doc__).parse_args()
    import numpy as np
    from PIL import Image

    from clearclip import ClearCLIP
    from clearclip.evaluation.run import evaluate
    from clearclip.miniature import BENCHMARK, CLASSES, PALETTE
    from clearclip.results.records import append
    from clearclip.results.workbook import update_workbook
    from clearclip.visualize import grid_picture, save_image

    print("The miniature: a small CLIP that this project trained on drawn scenes and their captions,")
    print("and 200 other drawn scenes with pixel-exact labels. No pixel label was seen in training.\n")
    methods, results, folder = ["CLIP", "ClearCLIP"], Path("results.xlsx"), Path("outputs/tour")
    # The run loads the weights itself: a model that it is handed could have been changed, and fills no cell.
    found = evaluate(ROOT / "config" / "cfg_miniature.py", folder, methods=methods)
    append([one.record for one in found], results)
    update_workbook(results)
    scores = {one.method: one.scores.summary["mIoU"] for one in found}
    for name, score in scores.items():
        print(f"{name:10} mIoU {score:5.1f}")
    print(f"{found[0].images} images in {found[0].seconds:.0f} s, both in one pass", flush=True)
    images = sorted((BENCHMARK / "images" / "val").glob("*.png"))[:SHOWN]
    truths = [np.array(Image.open(BENCHMARK / "annotations" / "val" / path.name)) for path in images]
    model = ClearCLIP.from_pretrained("miniature")
    shown = model.compare(images, list(CLASSES), methods)
    rows = [
        [result["CLIP"].image, truth, *(result[name].labels for name in methods)]
        for truth, result in zip(truths, shown, strict=True)
    ]
    titles = ["image", "ground truth", *(f"{name}: mIoU {score:.1f}" for name, score in scores.items())]
    page = grid_picture(rows, titles, list(zip(CLASSES, PALETTE, strict=True)), model.label)
    picture = save_image(page, folder / "tour.png")
    print(f"\nClearCLIP changes the last ViT block only: {scores['ClearCLIP'] - scores['CLIP']:+.1f} points of mIoU.")
    print(f"picture: {picture}\nresults: {results} (sheets: runs, per-class IoU, the paper's tables)")


if __name__ == "__main__":
    sys.exit(run_command(main))

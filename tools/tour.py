"""What ``make demo`` runs: the bundled miniature with vanilla CLIP and with ClearCLIP, mIoU, workbook and picture."""

import sys
from pathlib import Path

from clearclip.errors import run_command

ROOT = Path(__file__).resolve().parent.parent
SHOWN = 4  # the first images of the benchmark, as they come


def main() -> None:
    """Evaluate twice and show both side by side."""
    from clearclip.evaluation import evaluate
    from clearclip.images import read_image
    from clearclip.miniature import CLASSES, PALETTE
    from clearclip.pictures import grid_picture, save_image
    from clearclip.reports.results import record

    print("The miniature: a small CLIP that this project trained on drawn scenes and their captions,")
    print("and 200 other drawn scenes with pixel-exact labels. No pixel label was seen in training.\n")
    results, folder = Path("results.xlsx"), Path("outputs/tour")
    truths, predictions, scores = {}, {}, {}
    for name, model_type, ignore_residual in (("CLIP", "vanilla", False), ("ClearCLIP", "ClearCLIP", True)):
        samples = {}

        def keep(sample, classes, palette, samples=samples):
            if len(samples) < SHOWN:
                samples[sample.img_path] = sample.pred_sem_seg.data[0].cpu().numpy()
                truths[sample.img_path] = sample.gt_sem_seg.data[0].cpu().numpy()

        result = evaluate(
            ROOT / "config" / "cfg_miniature.py",
            folder / name,
            overrides={"model.model_type": model_type, "model.ignore_residual": ignore_residual},
            on_result=keep,
        )
        record(result, results)
        predictions[name], scores[name] = samples, result.scores.summary["mIoU"]
        print(f"{name:10} mIoU {scores[name]:5.1f}   ({result.images} images in {result.seconds:.0f} s)", flush=True)
    titles = ["image", "ground truth", *(f"{name}: mIoU {score:.1f}" for name, score in scores.items())]
    rows = [[read_image(image), truths[image], *(found[image] for found in predictions.values())] for image in truths]
    picture = save_image(grid_picture(rows, titles, list(zip(CLASSES, PALETTE, strict=True))), folder / "tour.png")
    print(f"\nClearCLIP changes the last ViT block only: {scores['ClearCLIP'] - scores['CLIP']:+.1f} points of mIoU.")
    print(f"picture: {picture}\nresults: {results} (sheets: runs, per-class IoU, the paper's tables)")


if __name__ == "__main__":
    sys.exit(run_command(main))

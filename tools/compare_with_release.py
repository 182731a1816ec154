"""This repository and the authors' release, side by side: ``python tools/compare_with_release.py RELEASE``.

RELEASE is a checkout of github.com/mc-lan/ClearCLIP. Its segmentor and ours run in this environment, each in a process
of its own, on the same weights and the same images, from the bytes of an image to the labels of its pixels. What the
release needs and today's packages lack is provided in its process (run_segmentor.py); no file of it is changed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open_clip
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from tiny import TINY, named_weights, sized_image

from clearclip.backbones import load_clip
from clearclip.commands.command_line import CommandParser, run_command
from clearclip.commands.image_search import find_images
from clearclip.miniature import BENCHMARK
from clearclip.utils.devices import choose_device
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, write_text_atomically
from clearclip.utils.images import read_image, resize_to_protocol
from clearclip.weights import choose_weights

METHODS = ("vanilla", "MaskCLIP", "SCLIP", "ClearCLIP", "GEM")
CLASSES = {
    "words.txt": "sky, cloud\nhill\ntree\nhorse, pony, foal\ngrass",
    "single.txt": "sky\nhill\ntree\nhorse\ngrass",
}
#: The largest difference of probabilities, and the smallest share of equal labels, that count as agreement.
TOLERANCES = {"fp32": (1e-4, 1.0), "fp16": (5e-3, 0.999)}
NOT_RUN = (
    "not run: BLIP (imports fairscale and functions that today's transformers lacks); demo.py (CUDA only); "
    "batches (docs/fidelity.md)"
)


@dataclass(frozen=True)
class Model:
    """Weights to compare: OpenCLIP's configuration, its ``state_dict``, and how our segmentor is asked for them."""

    label: str
    config: dict[str, Any]
    state: dict[str, torch.Tensor]
    own: dict[str, Any] = field(default_factory=dict)  # empty: the folder that both read


@dataclass(frozen=True)
class Geometry:
    """An image's size, its windows, and the size of its result; None: as the benchmarks do it."""

    name: str
    crop: int
    stride: int
    size: tuple[int, int] | None = None
    original: tuple[int, int] | None = None
    threshold: float = 0.0
    names: str = "words.txt"


def geometries(side: int) -> list[Geometry]:
    """What is compared with every method, for a model of images of ``side`` pixels."""
    half, quarter = side // 2, side // 4
    small = ((half + 3, side - quarter - 5), (side, side + half))
    return [
        Geometry("whole", 0, 0, (side, side)),
        Geometry("whole, wide", 0, 0, (side + quarter, side + half + quarter), (side + half, 2 * side - 9)),
        Geometry("exact windows", side, side, (side, 2 * side)),
        Geometry("overlapping", side - quarter, half, (side + half - 5, 2 * side - 13)),
        Geometry("padded", side + 9, half + 5, (side + 5, side + half + 7)),
        Geometry("tall", side, half, (side + half, side - quarter), (2 * side, side)),
        Geometry("small", side, half, *small),
        Geometry("threshold 0.3", side, half, *small, threshold=0.3),
        Geometry("single words", side, half, *small, names="single.txt"),
        Geometry("benchmark", 2 * side, side),
    ]


def random_model(label: str, config: dict[str, Any]) -> Model:
    return Model(f"{label}, random", config, named_weights(open_clip.model.CLIP(**config).state_dict()))


def models(weights: list[str], name: str) -> Iterator[Model]:
    """The weights that were asked for, one after the other.

    Raises:
        UserError: weights that do not exist, fit or load.
    """
    for one in weights:
        if one in ("random", "tiny"):
            yield random_model("tiny ViT", TINY)
        if one == "random":
            yield random_model("ViT-B-16", {**open_clip.get_model_config("ViT-B-16"), "quick_gelu": True})
        elif one != "tiny":
            chosen = choose_weights(model_name=name, pretrained=one)
            state = load_clip(chosen, torch.device("cpu"), "fp32").model.state_dict()
            config = dict(open_clip.get_model_config(chosen.model_name))
            if chosen.tag is not None:  # the activation, from OpenCLIP's own list
                published = open_clip.get_pretrained_cfg(chosen.model_name, chosen.tag)
                config["quick_gelu"] = bool(published.get("quick_gelu"))
            yield Model(f"{name}, {Path(one).name}", config, state, {"model_name": name, "pretrained": one})


def read_images(folder: str | None) -> dict[str, np.ndarray]:
    """The images to compare on, (H, W, 3) uint8 RGB: a scene of the miniature and a generated one, or a folder's.

    Raises:
        UserError: no folder, no image in it, or one that cannot be read.
    """
    if folder is None:
        generated = np.clip(50 * sized_image(400, 600).permute(1, 2, 0).numpy() + 128, 0, 255).astype(np.uint8)
        return {"scene": read_image(BENCHMARK / "images/val/0010.png"), "generated": generated}
    return {path.name: read_image(path) for path in find_images([folder])}


def plan(model: Model, images: dict[str, np.ndarray], device: str, precision: str, folder: Path) -> list[dict]:
    """Write what both processes read: weights, words, images and cases. Returns the cases."""
    (folder / "compared.json").write_text(json.dumps(model.config))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model.config, "preprocess_cfg": {}}))
    torch.save(model.state, folder / "open_clip_pytorch_model.bin")
    for name, text in CLASSES.items():
        (folder / name).write_text(text)
    side = model.config["vision_cfg"]["image_size"]
    inputs, cases = {}, []
    for geometry in geometries(side):
        originals = {}
        for name, image in images.items():
            resized = cv2.resize(image, geometry.size[::-1]) if geometry.size else resize_to_protocol(image, 2 * side)
            key = f"{geometry.name}|{name}"
            inputs[key] = np.ascontiguousarray(resized[:, :, ::-1].transpose(2, 0, 1))  # BGR, as pipelines read it
            originals[key] = geometry.original or geometry.size or image.shape[:2]
        cases.append({**asdict(geometry), "images": originals})
    cases = [
        {**case, "method": method, "dropped": dropped}
        for method, dropped, case in product(METHODS, (False, True), cases)
    ]
    np.savez(folder / "images.npz", **inputs)
    shared = {"device": device, "precision": precision, "own": model.own, "cases": cases}
    shared["vit_type"] = "ViT-L/14" if "ViT-L" in model.label else "ViT-B/16"
    (folder / "plan.json").write_text(json.dumps(shared))
    return cases


def run(which: str, folder: Path, release: Path) -> None:
    """One side in its process.

    Raises:
        UserError: it stopped; says by what.
    """
    paths = [str(release)] if which == "release" else []  # its open_clip comes before the installed one
    paths += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(Path(__file__).with_name("run_segmentor.py")), which, str(folder)]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    if done.returncode:
        whose = f"the release in {release}" if which == "release" else "our segmentor"
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines and done.returncode == 1 else f"its process ended with code {done.returncode}"
        raise UserError(f"{whose} cannot be run: {reason}")


def compare(folder: Path, cases: list[dict], model: Model, precision: str) -> list[dict[str, Any]]:
    """A row per case: what both found on all its images."""
    tolerance, least = TOLERANCES[precision]
    rows = []
    for number, case in enumerate(cases):
        differences, equal, decided, seconds = [], [], [], np.zeros(2)
        for image in range(len(case["images"])):
            theirs, own = (np.load(folder / f"{which}-{number}-{image}.npz") for which in ("release", "ours"))
            probabilities = theirs["probabilities"]
            differences.append(np.abs(probabilities - own["probabilities"]).max())
            equal.append((theirs["labels"] == own["labels"]).ravel())
            second, best = np.sort(probabilities, axis=0)[-2:]
            clear = (best - second > tolerance) & (np.abs(best - case["threshold"]) > tolerance)
            decided.append(clear.ravel())
            seconds += theirs["seconds"], own["seconds"]
        equal, decided = np.concatenate(equal), np.concatenate(decided)
        difference, share = float(np.max(differences)), float(equal[decided].mean()) if decided.any() else 1.0
        rows.append(
            {
                "weights": model.label,
                "precision": precision,
                "method": case["method"],
                "residual_and_ffn": "dropped" if case["dropped"] else "kept",
                "case": case["name"],
                "largest_difference": difference,
                "equal_labels": float(equal.mean()),
                "equal_decided_labels": share,
                "release_seconds": round(float(seconds[0]), 4),
                "our_seconds": round(float(seconds[1]), 4),
                "agrees": difference <= tolerance and share >= least,  # neither with NaN
            }
        )
    return rows


def show(console: Console, rows: list[dict[str, Any]], images: int) -> None:
    """Print the rows of one model."""
    first, (tolerance, least) = rows[0], TOLERANCES[rows[0]["precision"]]
    title = f"{first['weights']}, {first['precision']}, {images} image{'s'[: images > 1]} a case"
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("method", "residual\nand FFN", "case"):
        table.add_column(name, no_wrap=True)
    for name in ("largest\ndiff.", "labels\nequal, %", "decided\nones, %", "release,\ns", "ours,\ns"):
        table.add_column(name, justify="right", no_wrap=True)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        group = row["method"], row["residual_and_ffn"]
        table.add_row(
            *group,
            row["case"],
            f"{row['largest_difference']:.1e}",
            f"{100 * row['equal_labels']:.3f}",
            f"{100 * row['equal_decided_labels']:.2f}",
            f"{row['release_seconds']:.2f}",
            f"{row['our_seconds']:.2f}",
            style=None if row["agrees"] else "bold red",
            end_section=following is None or group != (following["method"], following["residual_and_ffn"]),
        )
    console.print(table)
    agreeing = sum(row["agrees"] for row in rows)
    worst = max(rows, key=lambda row: row["largest_difference"])
    theirs, own = (sum(row[name] for row in rows) for name in ("release_seconds", "our_seconds"))
    console.print(
        f"{agreeing} of {len(rows)} cases agree: probabilities within {tolerance:g} (largest difference "
        f"{worst['largest_difference']:.1e}), and {100 * least:g} % of the decided labels, those where the release's "
        "best class is further than that from the second and from the threshold. "
        f"Release {theirs:.1f} s, ours {own:.1f} s."
    )


def make_parser() -> CommandParser:
    """The options."""
    parser = CommandParser(prog="compare_with_release.py", description=__doc__.splitlines()[0])
    parser.add_argument("release", help="a checkout of github.com/mc-lan/ClearCLIP")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=["random"],
        help="random (default): a tiny model and ViT-B-16, made on the spot; tiny: the tiny one only; a tag; a file",
    )
    parser.add_argument("--model", default="ViT-B-16", help="OpenCLIP's name of a tag's or file's model (ViT-B-16)")
    parser.add_argument("--images", help="folder of images (default: a scene of the miniature and a generated image)")
    parser.add_argument("--precision", choices=TOLERANCES, default="fp32")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:N or mps")
    parser.add_argument("--csv", default="outputs/release.csv", help="where the table goes (outputs/release.csv)")
    return parser


def main() -> int:
    """Compare, print and write the table; 0 where all cases agree, 1 otherwise."""
    args = make_parser().parse_args()
    release, device = Path(args.release).resolve(), str(choose_device(args.device))
    if not (release / "clearclip_segmentor.py").is_file():
        raise UserError(
            f"{args.release} is no checkout of github.com/mc-lan/ClearCLIP: it has no clearclip_segmentor.py"
        )
    if Path(args.csv).is_dir():
        raise UserError(f"--csv {args.csv} is a folder; name a file")
    check_folder("--csv", Path(args.csv).parent)
    images, rows, console = read_images(args.images), [], Console()
    for model in models(args.weights, args.model):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            cases = plan(model, images, device, args.precision, folder)
            for which in ("release", "ours"):
                with console.status(f"{model.label}: {len(cases)} cases, {which}"):
                    run(which, folder, release)
            rows += compare(folder, cases, model, args.precision)
        show(console, rows[-len(cases) :], len(images))
    print(NOT_RUN)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    print(f"table: {write_text_atomically(args.csv, buffer.getvalue())}")
    return 0 if all(row["agrees"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(run_command(main))

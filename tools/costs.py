"""What single things cost, and how cost grows with work: ``python tools/costs.py text busy growth``.

text: words through the text tower, prompts cut and whole. busy: the miniature beside as many other processes
as ``--load`` says, with PyTorch's own way of waiting and with this project's. family: one image by each method of the
family, as multiples of ClearCLIP. growth: images, words, sides and methods, drawn into ``--figure``. Ratios are of
interleaved repetitions.
"""

from __future__ import annotations

from clearclip import ClearCLIP, Method, build_method  # before PyTorch, as in the scripts: it says how threads wait

# isort: split
import io
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import benchmark
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from clearclip.commands.command_line import CommandParser, run_command
from clearclip.model_settings import ModelSettings
from clearclip.text import encoder as text_encoder
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, write_bytes
from clearclip.utils.images import resize_to_protocol
from clearclip.windows import WindowGrid

#: What a process of its own measures while others keep the machine busy: seconds of wall and of processor time.
CHILD = """
import time
from clearclip import ClearCLIP
import numpy as np
model = ClearCLIP.from_pretrained("miniature", device="cpu")
images = [np.random.default_rng(i).integers(0, 256, (128, 160, 3), dtype=np.uint8) for i in range(20)]
segment = lambda: [found.labels for found in model.segment(images, ["sky", "grass", "tree", "house"])]
segment()
wall, processor = time.perf_counter(), time.process_time()
for _ in range(3):
    segment()
print(time.perf_counter() - wall, time.process_time() - processor)
"""


def show(title: str, seconds: dict[str, float], unit: str = "s") -> None:
    """Print seconds as rows of a Markdown table, and each as a multiple of the last one."""
    last = list(seconds.values())[-1]
    print(f"\n| {title} | {unit} | |\n|---|---:|---:|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.3g} | {value / last:.2f} × |")


def text(model: ClearCLIP, repeats: int) -> None:
    """Prompts at all their 77 tokens, and cut."""
    encoder, words, found = model.text_encoder, ["sky", "traffic light"], {}
    cut = text_encoder.CuttingEncoder.lengths

    def encode(name: str, lengths: Callable[..., Tensor]) -> None:
        text_encoder.CuttingEncoder.lengths = lengths
        found[name] = torch.stack(encoder._encode(words, tqdm(disable=True)))
        text_encoder.CuttingEncoder.lengths = cut

    def whole(_: object, tokens: dict[str, Tensor]) -> Tensor:
        return torch.full((len(tokens["input_ids"]),), tokens["input_ids"].shape[1])

    ways = {"whole": lambda: encode("whole", whole), "cut": lambda: encode("cut", cut)}
    show(f"text features of {len(words)} words, 160 prompts", benchmark.medians(ways, repeats, model.device))
    print(f"\nlargest difference of a feature: {(found['whole'] - found['cut']).abs().max():.1e}")


def busy(load: int, repeats: int) -> None:
    """The miniature beside other processes. A fair share is its processor time, quiet, times processes per core."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    ways = {"PyTorch's own": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}, "this project's": {}}
    seconds: dict[str, list[tuple[float, float]]] = {}
    for others in (0, load):
        spin = f"import os\nwhile os.getppid() == {os.getpid()}: pass"  # never longer than this process
        spinning = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(others)]
        try:
            for _, (name, own) in itertools.product(range(repeats), ways.items()):
                done = subprocess.run(
                    [sys.executable, "-c", CHILD], env=environment | own, capture_output=True, text=True, check=True
                )
                wall, processor = map(float, done.stdout.split())
                seconds.setdefault(f"{name}, {others} others", []).append((wall, processor))
        finally:
            for process in spinning:
                process.kill()
    cores = len(os.sched_getaffinity(0))
    quiet = min(processor for _, processor in seconds["this project's, 0 others"])
    fair = quiet / cores * max(1, (load + cores) / cores)
    show(f"60 images of the miniature, {cores} cores", {name: min(times)[0] for name, times in seconds.items()})
    print(f"\nfair sharing beside {load} others: {fair:.3g} s")


#: The methods of docs/family.md, and the post-processings after ClearCLIP; second encoders have random weights.
FAMILY = ["NACLIP", "NACLIP + RCS", "NACLIP + RCS + SFR", "SC-CLIP", "SFP", "PEARL", "GEM"]
SECOND_ENCODERS = {"ProxyCLIP": ("dino-vitb16", "dino-vitb8"), "LPOSS": ("dino-vitb16",)}
POSTS = ("pamr", "tlp", "lposs+")


def family(model: ClearCLIP, repeats: int) -> None:
    """One image of 480×640 and 21 words by each method, with windows of 448 pixels every 224."""
    image = model.normalize(resize_to_protocol(benchmark.random_photo((480, 640), 0)))
    features = benchmark.random_text(model, 21)
    methods = {name: build_method(name) for name in FAMILY}
    for name, guides in SECOND_ENCODERS.items():
        for guide in guides:
            methods[f"{name} with {guide}"] = build_method({"type": name, "guide": guide, "guide_weights": "random"})
    ways: dict[str, Callable[[], object]] = {}
    for post in POSTS:
        settings = replace(model.settings, post=post)
        ways[f"ClearCLIP and {post}"] = lambda settings=settings: predict(model.method, settings)
    for name, method in methods.items():
        ways[name] = lambda method=method: predict(method, model.settings)
    ways["ClearCLIP"] = lambda: predict(model.method, model.settings)

    def predict(method: Method, settings: ModelSettings) -> object:
        return model.predict([image], features, [(480, 640)], methods=[method], settings=settings)

    show("one image, 21 words", benchmark.medians(ways, repeats, model.device))


def growth(model: ClearCLIP, figure: Path) -> None:
    """Time against images, words, sides and methods, each beside what is proportional to the first."""
    small = ClearCLIP.from_pretrained("miniature", device="cpu")
    photo = benchmark.random_photo((448, 448), 0)

    def segment(one: ClearCLIP, images: list, words: int, methods: list[Method] | None = None) -> float:
        tensors, text = [one.normalize(image) for image in images[:8]], benchmark.random_text(one, words)
        start = time.perf_counter()
        for first in range(0, len(images), 8):
            some = tensors[: min(8, len(images) - first)]
            one.predict(some, text, [tuple(image.shape[1:]) for image in some], methods=methods)
        return time.perf_counter() - start

    switches = itertools.product(("qk", "qq", "kk", "vv", "qq+kk", "identity"), (False, True), (False, True))
    methods = [build_method({"type": "ClearCLIP", "attention": a, "residual": r, "ffn": f}) for a, r, f in switches]
    scene = benchmark.random_photo((128, 160), 0)
    segment(small, [scene], 4), segment(model, [photo], 20)
    curves = {
        "images (miniature)": {n: segment(small, [scene] * n, 4) for n in (10, 100, 1000)},
        "words (one window)": {n: segment(model, [photo], n) for n in (20, 171, 1000)},
        "windows (448² to 2,048² pixels)": {
            len(
                WindowGrid.of((side, side), 448, 224, model.image_encoder.patch_size).cut(torch.zeros(3, side, side))
            ): segment(model, [benchmark.random_photo((side, side), 0)], 20)
            for side in (448, 896, 1344, 2048)
        },
        "methods (one window)": {n: segment(model, [photo], 20, methods[:n]) for n in (1, 6, 12, 24)},
    }
    drawing, buffer = Figure((9, 2.4), layout="constrained"), io.BytesIO()
    for place, (title, curve) in enumerate(curves.items(), start=1):
        axes, (first, seconds) = drawing.add_subplot(1, 4, place), next(iter(curve.items()))
        axes.loglog(list(curve), [seconds * work / first for work in curve], "--", color="0.6", label="proportional")
        axes.loglog(list(curve), list(curve.values()), "o-", color="#0072B2", label="measured")
        axes.set(title=title, ylabel="seconds" if place == 1 else "", xticks=list(curve), xticklabels=list(curve))
        axes.minorticks_off()
        axes.title.set_fontsize(9)
        show(title, dict(reversed([(f"{work:,}", value) for work, value in curve.items()])))
    axes.legend(fontsize=7)
    drawing.savefig(buffer, dpi=110)
    print(f"\nfigure: {write_bytes(figure, buffer.getvalue())}")


def main() -> int:
    """Measure what is asked for."""
    parser = CommandParser(prog="costs.py", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=["text", "busy", "family", "growth"])
    parser.add_argument("--model", default="ViT-B-16", help="OpenCLIP's name; the weights are random")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--load", type=int, default=10, help="other processes for busy (default 10)")
    parser.add_argument("--figure", type=Path, default="docs/speed.png")
    args = parser.parse_args()
    if args.repeats < 1 or args.load < 1:
        raise UserError("--repeats and --load must be at least 1")
    check_folder("--figure", args.figure.parent)
    torch.manual_seed(0)
    model = None
    if {"text", "family", "growth"} & {*args.what}:
        model = ClearCLIP.from_pretrained(args.model, "random", device="cpu")
    print(f"{benchmark.machine(torch.device('cpu'))}, PyTorch {torch.__version__}")
    for what in args.what:
        if what == "text":
            text(model, args.repeats)
        elif what == "family":
            family(model, args.repeats)
        elif what == "busy":
            busy(args.load, args.repeats)
        else:
            growth(model, args.figure)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

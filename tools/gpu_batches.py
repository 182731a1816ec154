"""What one batch costs on a GPU by every method, precision and post-processing: ``python tools/gpu_batches.py``.

For each: milliseconds an image, kernels an image, how often the host waits while a batch is queued, and the peak of the
memory. From bytes on the host to confusion counts, as ``eval.py`` does it, on a ViT-B/16 with random weights. What
``tests/test_simulated_gpu.py`` states about a GPU that computes nothing is seen here on a real one. The table is
Markdown, for docs/speed.md. ``--device cpu`` tries the program where there is no GPU: it has seconds only.
"""

from __future__ import annotations

from clearclip import ClearCLIP, ModelSettings  # before PyTorch, as in the scripts: it says how threads wait

# isort: split
import json
import logging
import statistics
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from benchmark import machine, random_text
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from clearclip.commands.command_line import CommandParser, run_command
from clearclip.evaluation.confusion import BatchCounts, count_batch
from clearclip.evaluation.segmentor import ImagePreprocessor
from clearclip.methods import build_method
from clearclip.text import TextFeatures
from clearclip.utils.devices import choose_device, choose_precision, possible_precisions
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, write_text_atomically

WORDS = 21
#: Of COCO at the protocol's size: two windows.
SIZE = (448, 597)
#: The first batch fills caches and picks kernels.
REPEATS = 3


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        method: a registered name, or a dict with its options.
        precision: "fp32", "fp16", "bf16", "mixed", or "auto": fp16 on a GPU.
        post: a post-processing, or None.
    """

    method: str | dict[str, Any]
    precision: str = "auto"
    post: str | None = None

    @property
    def label(self) -> str:
        """As in the table."""
        name = build_method(self.method).label
        return f"{name} + {self.post}" if self.post else name


#: In the order of interest, since the time on a GPU may be short.
CASES = (
    *(Case("ClearCLIP", precision) for precision in ("fp16", "bf16", "mixed", "fp32")),
    *(Case(method) for method in ("CLIP", "MaskCLIP", "SCLIP", "GEM", "NACLIP", "SC-CLIP", "SFP", "PEARL")),
    Case({"type": "ProxyCLIP", "guide": "untrained-vit4"}),
    *(Case("ClearCLIP", post=post) for post in ("pamr", "tlp", "lposs+")),
    Case({"type": "SFR", "base": {"type": "RCS", "base": "NACLIP"}}),
    Case({"type": "LPOSS", "guide": "untrained-vit4"}),
)


@dataclass(frozen=True)
class Measurement:
    """What a case costs.

    Attributes:
        label, precision: of the case.
        milliseconds: of an image, the median of some batches.
        kernels: of an image; None without a GPU, as the following.
        waits: of the host while a batch is queued.
        gigabytes: at most held on the GPU.
    """

    label: str
    precision: str
    milliseconds: float
    kernels: float | None = None
    waits: int | None = None
    gigabytes: float | None = None


class Batch:
    """Images and ground truth on the host, and what ``eval.py`` does with them.

    Args:
        model: with random weights.
        images: how many.
    """

    def __init__(self, model: ClearCLIP, images: int):
        generator = torch.Generator().manual_seed(0)
        shape = (images, 3, *SIZE)
        self.inputs = list(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))
        self.truths = list(torch.randint(0, WORDS, (images, *SIZE), dtype=torch.uint8, generator=generator))
        self.model = model
        self.text: TextFeatures = random_text(model, WORDS)
        mean, std = model.mean.flatten().tolist(), model.std.flatten().tolist()
        self.preprocessor = ImagePreprocessor(mean, std).to(model.device)

    @torch.inference_mode()
    def queue(self, case: Case) -> BatchCounts:
        """Ask for the counts; a GPU is still computing them afterwards."""
        method = build_method(case.method)
        self.model.check(method)
        settings = ModelSettings(post=case.post, device=self.model.device)
        images: list[Tensor] = self.preprocessor.normalize_images(self.inputs)
        sizes = [SIZE] * len(images)
        labels = self.model.predict_labels(images, self.text, sizes, [method], settings, mark_invalid=True)
        return count_batch(self.truths, labels, WORDS, ignore_index=255)


def measure(batch: Batch, case: Case) -> Measurement:
    """One case, after a batch that is not counted."""
    on_gpu = batch.model.device.type == "cuda"
    images = len(batch.inputs)
    if on_gpu:
        batch.queue(case).read()
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        batch.queue(case).read()
        seconds.append(time.perf_counter() - started)
    milliseconds = 1000 * statistics.median(seconds) / images
    if not on_gpu:
        return Measurement(case.label, batch.model.precision, milliseconds)
    gigabytes = torch.cuda.max_memory_allocated() / 1e9
    kernels = count_kernels(batch, case) / images
    return Measurement(case.label, batch.model.precision, milliseconds, kernels, count_waits(batch, case), gigabytes)


def count_kernels(batch: Batch, case: Case) -> int:
    """Kernels of a batch, copies and fills of memory left out."""
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        batch.queue(case).read()
    on_gpu = [event for event in recorded.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not event.name.startswith(("Memcpy", "Memset")) for event in on_gpu)


def count_waits(batch: Batch, case: Case) -> int:
    """How often PyTorch says that the host waits for the GPU while a batch is queued; its counts are read later."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            counts = batch.queue(case)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    counts.read()
    return sum("synchroniz" in str(warning.message) for warning in caught)


TABLE_HEAD = "| method | precision | ms an image | kernels an image | waits | GB |\n|---|---|---:|---:|---:|---:|"


def table_row(row: Measurement) -> str:
    """A measurement in Markdown."""
    cells = [row.label, row.precision, f"{row.milliseconds:.1f}"]
    for value, digits in ((row.kernels, 0), (row.waits, 0), (row.gigabytes, 1)):
        cells.append("–" if value is None else f"{value:.{digits}f}")
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Measure every case that fits into the time."""
    parser = CommandParser(prog="gpu_batches.py", description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="default: the GPU")
    parser.add_argument("--images", type=int, default=32, help="of a batch (default 32)")
    parser.add_argument("--seconds", type=float, default=240, help="start no case after so many (default 240)")
    parser.add_argument("--model", default="ViT-B-16", help="OpenCLIP's name; the weights are random")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    if args.images < 1 or args.seconds <= 0:
        raise UserError("--images and --seconds must be above 0")
    if args.out:
        check_folder("--out", args.out.parent)
    device = choose_device(args.device or "cuda")
    print(f"{machine(device)}, PyTorch {torch.__version__}, {args.model}, {args.images} images of {SIZE} in a batch\n")
    print(TABLE_HEAD, flush=True)
    started = time.perf_counter()
    measurements: list[Measurement] = []
    left_out: list[str] = []
    batches: dict[str, Batch] = {}
    for case in CASES:
        has_time = time.perf_counter() - started < args.seconds
        if not has_time or case.precision not in ("auto", *possible_precisions(device)):
            left_out.append(f"{case.label} ({case.precision})")
            continue
        precision = choose_precision(case.precision, device)
        if precision not in batches:
            batches[precision] = Batch(random_model(args.model, precision, device), args.images)
        measurements.append(measure(batches[precision], case))
        print(table_row(measurements[-1]), flush=True)
        # Written each time: a GPU that is lent may be gone before the last case.
        if args.out:
            figures = {"machine": machine(device), "cases": [asdict(row) for row in measurements]}
            write_text_atomically(args.out, json.dumps(figures, indent=1))
    if left_out:
        print(f"\nleft out (precision not native, or out of time): {', '.join(left_out)}")
    return 0


def random_model(name: str, precision: str, device: torch.device) -> ClearCLIP:
    """OpenCLIP's architecture with random weights."""
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # OpenCLIP warns that weights are random
    return ClearCLIP.from_pretrained(name, "random", device=device, precision=precision, quick_gelu=True)


if __name__ == "__main__":
    sys.exit(run_command(main))

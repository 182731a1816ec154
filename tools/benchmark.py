"""How much of the bare encoder's speed is left end to end, on this machine: ``python tools/benchmark.py``.

Ratios, since absolute times are not stable: the same windows go through OpenCLIP's own ``visual`` (the bare encoder),
through this project from decoded tensors and from files, and through a plain transcription of the method that takes
one window at a time and holds everything at full size. Repetitions are interleaved, medians are shown. The
architectures are real, the weights random.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clearclip import ClearCLIP
from clearclip.devices import choose_device, choose_precision
from clearclip.errors import CommandParser, UserError, run_command
from clearclip.files import check_folder, write_text_atomically
from clearclip.images import resize_to_protocol
from clearclip.text import ClassWords, TextFeatures
from clearclip.windows import WindowGrid

#: Original sizes (height, width) that are typical of the benchmarks.
SIZES = {"photo": (448, 600), "voc": (375, 500), "ade": (512, 683), "coco": (480, 640), "city": (1024, 2048)}
CROPS = {"city": (224, 224)}  # the others: 448, 224


def random_text(words: int, dim: int, device: torch.device) -> TextFeatures:
    """Random unit features for as many one-word classes."""
    features = F.normalize(torch.randn(words, dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    classes = ClassWords.parse([f"class {index}" for index in range(words)])
    return TextFeatures(classes, features, torch.arange(words)).to(device)


def random_photo(size: tuple[int, int], seed: int) -> np.ndarray:
    """A smooth random (H, W, 3) uint8 image: such compress and decode as photographs do."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[0] // 16, size[1] // 16, 3), dtype=np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(image + rng.integers(-12, 13, image.shape), 0, 255).astype(np.uint8)


def windows_of(model: ClearCLIP, images: list[Tensor]) -> Tensor:
    """All windows of all images as one batch."""
    cut = []
    for image in images:
        grid = WindowGrid.of(
            tuple(image.shape[-2:]), model.slide_crop, model.slide_stride, model.image_encoder.patch_size
        )
        cut += grid.cut(image)
    return torch.stack(cut)


@torch.inference_mode()
def bare(model: ClearCLIP, windows: Tensor, batch: int) -> None:
    """OpenCLIP's own image tower on the same windows, in batches of the same size.

    OpenCLIP takes no window size but the model's own, so the positions are set as this project resizes them.
    """
    visual = model.image_encoder.visual
    own = visual.positional_embedding
    positions = model.image_encoder.positions(model.image_encoder.grid(windows))
    visual.positional_embedding = torch.nn.Parameter(positions.clone(), requires_grad=False)
    try:
        for start in range(0, len(windows), batch):
            visual(windows[start : start + batch].to(visual.conv1.weight.dtype))
    finally:
        visual.positional_embedding = own


@torch.inference_mode()
def plain(model: ClearCLIP, image: Tensor, text: TextFeatures, size: tuple[int, int]) -> Tensor:
    """The specification as it reads: one window at a time, words × height × width at every step."""
    visual, crop, stride = model.image_encoder.visual, model.slide_crop, model.slide_stride
    block = visual.transformer.resblocks[-1]
    patch = visual.patch_size[0]
    _, height, width = image.shape
    total = image.new_zeros(len(text.features), height, width)
    count = image.new_zeros(1, height, width)
    for row in range(max(height - crop + stride - 1, 0) // stride + 1):
        for column in range(max(width - crop + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + crop, height), min(column * stride + crop, width)
            top, left = max(bottom - crop, 0), max(right - crop, 0)
            window = image[:, top:bottom, left:right]
            h, w = window.shape[1:]
            padded = F.pad(window, (0, -w % patch, 0, -h % patch))[None]
            x = visual.conv1(padded.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
            x = torch.cat([visual.class_embedding.to(x.dtype).expand(1, 1, -1), x], dim=1)
            grid = (padded.shape[2] // patch, padded.shape[3] // patch)
            x = visual.ln_pre(x + model.image_encoder.positions(grid).to(x.dtype))
            for earlier in visual.transformer.resblocks[:-1]:
                x = earlier(x)
            qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
            q, _, v = (part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
            weights = (q @ q.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
            x = block.attn.out_proj((weights @ v).transpose(1, 2).flatten(2))
            features = F.normalize((visual.ln_post(x) @ visual.proj)[0, 1:].float(), dim=-1)
            logits = (features @ text.features.T).T.reshape(1, -1, *grid)
            logits = F.interpolate(logits, size=padded.shape[2:], mode="bilinear")[0, :, :h, :w]
            total[:, top:bottom, left:right] += logits
            count[:, top:bottom, left:right] += 1
    logits = F.interpolate((total / count)[None], size=size, mode="bilinear")[0]
    probabilities = (logits * model.logit_scale).softmax(dim=0)
    labels = probabilities.argmax(dim=0)
    labels[probabilities.amax(dim=0) < model.prob_thd] = 0
    return labels


class Files(Dataset):
    """Photographs in files, decoded and resized as an evaluation does."""

    def __init__(self, paths: list[Path], repeat: int):
        self.paths = paths * repeat

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[int, int]]:
        image = cv2.imread(str(self.paths[index]))[:, :, ::-1]
        resized = resize_to_protocol(np.ascontiguousarray(image))
        return torch.from_numpy(resized).permute(2, 0, 1).contiguous(), image.shape[:2]


def from_files(model: ClearCLIP, loader: DataLoader, text: TextFeatures) -> None:
    """Files to labels on the CPU."""
    for batch in loader:
        images = [model.normalize(image) for image, _ in batch]
        for labels, _ in model.predict(images, text, [size for _, size in batch]):
            labels.cpu()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(model: ClearCLIP, size_name: str, words: int, images: int, repeats: int, workers: int) -> dict:
    """Median seconds per window of each way, for one image size and number of words."""
    device, size = model.device, SIZES[size_name]
    model.slide_crop, model.slide_stride = CROPS.get(size_name, (448, 224))
    text = random_text(words, model.image_encoder.dim, device)
    photos = [random_photo(size, seed) for seed in range(images)]
    tensors = [model.normalize(resize_to_protocol(photo)) for photo in photos]
    windows = windows_of(model, tensors)
    batch = model._window_batch(windows[0])
    sizes = [size] * images
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.jpg" for index in range(images)]
        for path, photo in zip(paths, photos, strict=True):
            cv2.imwrite(str(path), photo[:, :, ::-1])
        loader = DataLoader(
            Files(paths, 1), batch_size=images, num_workers=workers, collate_fn=list, persistent_workers=workers > 0
        )
        ways = {
            "bare encoder": lambda: bare(model, windows, batch),
            "from tensors": lambda: [labels.cpu() for labels, _ in model.predict(tensors, text, sizes)],
            "from files": lambda: from_files(model, loader, text),
            "plain transcription": lambda: [plain(model, image, text, size).cpu() for image in tensors],
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for repetition in range(repeats + 1):
            for name, work in ways.items():
                spent = seconds(work, device)
                if repetition:  # the first warms up
                    times[name].append(spent / len(windows))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "size": size_name,
        "words": words,
        "windows": len(windows),
        "batch": batch,
        "seconds_per_window": medians,
        "from tensors ÷ bare": medians["bare encoder"] / medians["from tensors"],
        "from files ÷ bare": medians["bare encoder"] / medians["from files"],
        "times plain": medians["plain transcription"] / medians["from tensors"],
    }


class PeakMemory:
    """The largest memory in use during a block, beyond what was in use before it, in MB."""

    def __init__(self, device: torch.device):
        self.device = device
        self.megabytes = 0.0

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.before = self.peak = self._resident()
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._watch)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated()
        else:
            self._stop.set()
            self._thread.join()
            peak = self.peak
        self.megabytes = (peak - self.before) / 1e6

    @staticmethod
    def _resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.peak = max(self.peak, self._resident())


def peak_memory(model: ClearCLIP, words: int) -> float:
    """MB beyond the weights while a 1024×2048 image is segmented in windows of 448."""
    model.slide_crop, model.slide_stride = 448, 224
    text = random_text(words, model.image_encoder.dim, model.device)
    image = model.normalize(resize_to_protocol(random_photo(SIZES["city"], 0)))
    with PeakMemory(model.device) as memory:
        model.predict([image], text, [SIZES["city"]])
    return memory.megabytes


def text_start(name: str, words: int, device: torch.device, precision: str) -> dict[str, float]:
    """Seconds until the features of so many words are there: cold (encoded) and warm (from disk)."""
    classes = ClassWords.parse([f"word {index}" for index in range(words)])
    out = {}
    with tempfile.TemporaryDirectory() as folder, cache_in(folder):
        torch.manual_seed(0)
        model = ClearCLIP.from_pretrained(name, None, device=device, precision=precision)
        out["cold"] = seconds(lambda: model.encode_text(classes, progress=True), device)
        model.text_encoder.forget()
        out["warm"] = seconds(lambda: model.encode_text(classes), device)
    return {"words": words, **out, "times": out["cold"] / out["warm"]}


@contextmanager
def cache_in(folder: str) -> Iterator[None]:
    """Let the text cache lie in another folder for a while."""
    before = os.environ.get("CLEARCLIP_CACHE")
    os.environ["CLEARCLIP_CACHE"] = folder
    try:
        yield
    finally:
        del os.environ["CLEARCLIP_CACHE"]
        if before is not None:
            os.environ["CLEARCLIP_CACHE"] = before


def machine(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def show(result: dict) -> None:
    """Print the tables."""
    console = Console()
    title = f"{result['model']}, {result['precision']}, {result['machine']}"
    table = Table(title=title)
    for name in ("image", "words", "windows", "bare, windows/s", "tensors ÷ bare", "files ÷ bare", "× plain"):
        table.add_column(name, justify="right")
    for row in result["speed"]:
        table.add_row(
            row["size"],
            str(row["words"]),
            str(row["windows"]),
            f"{1 / row['seconds_per_window']['bare encoder']:.2f}",
            f"{row['from tensors ÷ bare']:.2f}",
            f"{row['from files ÷ bare']:.2f}",
            f"{row['times plain']:.2f}",
        )
    console.print(table)
    console.print(f"peak memory beyond weights, 171 words, 1024×2048: {result['peak_memory_mb']:.0f} MB")
    if "text" in result:
        text = result["text"]
        console.print(
            f"text of {text['words']} words: cold {text['cold']:.1f} s, warm {text['warm']:.2f} s "
            f"({text['times']:.0f} ×)"
        )


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = CommandParser(prog="benchmark.py", description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["ViT-B-16"], help="OpenCLIP names (default ViT-B-16)")
    parser.add_argument("--words", nargs="+", type=int, default=[21, 60, 150, 171])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["voc", "ade", "coco", "city"])
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--images", type=int, default=2, help="per batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes that read files")
    parser.add_argument("--window-batch", type=int)
    parser.add_argument("--cold-words", type=int, default=0, help="also time the start with so many words (slow)")
    parser.add_argument("--out", default="outputs/benchmark.json")
    return parser


def main() -> int:
    """Measure and show."""
    args = make_parser().parse_args()
    if min(args.images, args.repeats, *args.words) < 1:
        raise UserError("--images, --repeats and --words must be at least 1")
    if min(args.workers, args.cold_words) < 0:
        raise UserError("--workers and --cold-words must be at least 0")
    if Path(args.out).is_dir():
        raise UserError(f"--out {args.out} is a folder; name a file")
    check_folder("--out", Path(args.out).parent)
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    results = []
    for name in args.model:
        torch.manual_seed(0)
        model = ClearCLIP.from_pretrained(
            name, None, device=device, precision=precision, window_batch=args.window_batch
        )
        # First, before the allocator has kept anything from other work.
        result = {"model": name, "precision": precision, "machine": machine(device), "torch": torch.__version__}
        result["peak_memory_mb"] = peak_memory(model, 171)
        result["speed"] = [
            compare(model, size, words, args.images, args.repeats, args.workers)
            for size in args.sizes
            for words in args.words
        ]
        if args.cold_words:
            result["text"] = text_start(name, args.cold_words, device, precision)
        show(result)
        results.append(result)
    print(f"figures: {write_text_atomically(args.out, json.dumps(results, indent=1))}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

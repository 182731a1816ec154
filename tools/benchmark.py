"""How much of the bare encoder's speed is left end to end, and what methods cost: ``python tools/benchmark.py``.

The same windows go through OpenCLIP's own ``visual`` (the bare encoder), through this project from decoded tensors and
from files, and through a plain transcription of the method that takes one window at a time and holds everything at
full size. With ``--methods``, each one alone and all in one pass are timed instead. Then it says where the time of an
evaluation goes, and how far the encoder is from what the machine can do. Repetitions are interleaved and medians shown,
with their ratios: absolute times are not stable. The architectures are real, the weights random. What other things cost
is in ``tools/costs.py``.
"""

from __future__ import annotations

from clearclip import ClearCLIP, Method, build_method  # before PyTorch, as in the scripts: it says how threads wait
from clearclip.windows.batches import WindowBatch

# isort: split
import json
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clearclip.backbones.dense_encoder import resize_positions
from clearclip.commands.command_line import CommandParser, run_command
from clearclip.evaluation.confusion import confusion_counts
from clearclip.methods import Context
from clearclip.text import ClassWords, TextFeatures
from clearclip.utils.devices import PRECISIONS
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, write_text_atomically
from clearclip.utils.images import resize_to_protocol
from clearclip.windows import ScoreMap, WindowGrid

#: Original sizes (height, width) that are typical of the benchmarks.
SIZES = {"photo": (448, 600), "voc": (375, 500), "ade": (512, 683), "coco": (480, 640), "city": (1024, 2048)}
CROPS = {"city": (224, 224)}  # the others: 448, 224


def random_text(model: ClearCLIP, words: int) -> TextFeatures:
    """Random unit features for as many one-word classes."""
    features = F.normalize(
        torch.randn(words, model.image_encoder.dim, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    classes = ClassWords.parse([f"class {index}" for index in range(words)])
    return TextFeatures(classes, features, torch.arange(words)).to(model.device)


def random_photo(size: tuple[int, int], seed: int) -> np.ndarray:
    """A smooth random (H, W, 3) uint8 image: such compress and decode as photographs do."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[0] // 16, size[1] // 16, 3), dtype=np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(image + rng.integers(-12, 13, image.shape), 0, 255).astype(np.uint8)


def positions(model: ClearCLIP, grid: tuple[int, int]) -> Tensor:
    """Positional embeddings as published, (1+N, D)."""
    own = model.image_encoder.visual.positional_embedding.detach()
    return resize_positions(own, model.image_encoder.grid_size, grid, "scale_factor")


@torch.inference_mode()
def bare(model: ClearCLIP, windows: Tensor, batch: int) -> None:
    """OpenCLIP's own image tower, which takes no window size but its own: the positions are resized for it."""
    visual, grid = model.image_encoder.visual, model.image_encoder.grid(windows)
    own = visual.positional_embedding
    visual.positional_embedding = torch.nn.Parameter(positions(model, grid), requires_grad=False)
    try:
        for start in range(0, len(windows), batch):
            visual(windows[start : start + batch].to(visual.conv1.weight.dtype))
    finally:
        visual.positional_embedding = own


@torch.inference_mode()
def plain(model: ClearCLIP, image: Tensor, text: TextFeatures, size: tuple[int, int]) -> Tensor:
    """ClearCLIP as the paper reads: one window at a time, words × height × width at every step."""
    visual, crop, stride = model.image_encoder.visual, model.settings.slide_crop, model.settings.slide_stride
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
            grid = (padded.shape[2] // patch, padded.shape[3] // patch)
            x = visual.conv1(padded.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
            x = torch.cat([visual.class_embedding.to(x.dtype).expand(1, 1, -1), x], dim=1)
            x = visual.ln_pre(x + positions(model, grid).to(x.dtype))
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
    return (logits * model.settings.logit_scale).softmax(dim=0).argmax(dim=0)


class Files(Dataset):
    """Photographs in files, decoded and resized as an evaluation does."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[int, int]]:
        image = cv2.imread(str(self.paths[index]))[:, :, ::-1]
        return torch.from_numpy(resize_to_protocol(image).copy()).permute(2, 0, 1), image.shape[:2]


def from_files(model: ClearCLIP, loader: DataLoader, text: TextFeatures) -> None:
    """Files to labels on the CPU."""
    for batch in loader:
        images = [model.normalize(image) for image, _ in batch]
        for predictions in model.predict(images, text, [size for _, size in batch]):
            predictions[0].labels.cpu()


def medians(ways: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each way, in turn; the first round warms up."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repeats + 1):
        for name, work in ways.items():
            wait()
            start = time.perf_counter()
            work()
            wait()
            if repetition:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def compare(model: ClearCLIP, size_name: str, words: int, methods: list[Method], args: Any) -> dict[str, Any]:
    """Median seconds of each way, for one image size and number of words."""
    size, (crop, stride) = SIZES[size_name], CROPS.get(size_name, (448, 224))
    model.settings = replace(model.settings, slide_crop=crop, slide_stride=stride)
    text = random_text(model, words)
    photos = [random_photo(size, seed) for seed in range(args.images)]
    tensors, sizes = [model.normalize(resize_to_protocol(photo)) for photo in photos], [size] * args.images
    patch = model.image_encoder.patch_size
    cut = [WindowGrid.of(tuple(image.shape[-2:]), crop, stride, patch).cut(image) for image in tensors]
    windows = torch.stack([window for of_image in cut for window in of_image])
    batch = model.windows_per_batch(WindowBatch((0,), "padded", windows=[windows[0]]), [model.method])

    def run(*methods: Method) -> list:
        results = model.predict(tensors, text, sizes, methods=methods)
        return [labels.cpu() for pairs in results for labels, _ in pairs]

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.jpg" for index in range(args.images)]
        for path, photo in zip(paths, photos, strict=True):
            cv2.imwrite(str(path), photo[:, :, ::-1])
        workers = dict(num_workers=args.workers, persistent_workers=args.workers > 0)
        loader = DataLoader(Files(paths), batch_size=args.images, collate_fn=list, **workers)
        ways: dict[str, Callable[[], object]] = {"bare encoder": lambda: bare(model, windows, batch)}
        if methods:
            ways |= {method.label: lambda method=method: run(method) for method in methods}
            ways["all in one pass"] = lambda: run(*methods)
        else:
            ways["from tensors"] = lambda: run(model.method)
            ways["from files"] = lambda: from_files(model, loader, text)
            ways["plain transcription"] = lambda: [plain(model, image, text, size).cpu() for image in tensors]
        seconds = medians(ways, args.repeats, model.device)
    return {"size": size_name, "words": words, "windows": len(windows), "images": args.images, "seconds": seconds}


def parts(model: ClearCLIP, size_name: str, words: int, args: Any) -> dict[str, Any]:
    """Where the time of one image goes: median seconds of each step, and the encoder's rate beside the machine's."""
    encoder, method, size = model.image_encoder, model.method, SIZES[size_name]
    crop, stride = CROPS.get(size_name, (448, 224))
    text, truth, now = random_text(model, words), torch.zeros(size, dtype=torch.int64, device=model.device), {}
    count = len(encoder.blocks) - method.depth

    def resize() -> None:
        now["image"] = model.normalize(resize_to_protocol(now["photo"]))
        now["grid"] = WindowGrid.of(tuple(now["image"].shape[-2:]), crop, stride, encoder.patch_size)
        now["windows"] = torch.stack(now["grid"].cut(now["image"]))

    def encode() -> None:
        grid, tokens = encoder.grid(now["windows"]), encoder.tokens(now["windows"], method.position_resize)
        for index in range(count):
            tokens = encoder.run_block(index, tokens, grid)
        now["tokens"], now["patches"] = tokens, grid

    def last() -> None:
        grid, prefix = now["patches"], encoder.num_prefix_tokens
        tokens = method(encoder.parts(grid), now["tokens"], Context(grid, prefix, embed=encoder.head))
        features = F.normalize(encoder.head(tokens[:, prefix:]).float(), dim=-1).unflatten(1, grid)
        now["similarity"] = now["grid"].join(features @ text.features.T)

    def labels() -> None:
        scores = ScoreMap(now["similarity"], now["grid"])
        now["labels"] = model.settings.readout.labels(scores, size, text.word_to_class)

    block = encoder.blocks[0]
    matrices = (block.attn.in_proj_weight, block.attn.out_proj.weight, block.mlp.c_fc.weight, block.mlp.c_proj.weight)

    def products() -> None:
        rows = now["tokens"].shape[0] * now["tokens"].shape[1]
        for matrix in matrices:
            torch.mm(now["tokens"].new_ones(rows, matrix.shape[1]), matrix.T)

    ways = {
        "read": lambda: now.update(photo=cv2.imread(str(Path(folder) / "photo.jpg"))[:, :, ::-1]),
        "resize": resize,
        f"encode ({count} blocks)": encode,
        "last block, words": last,
        "labels": labels,
        "metric": lambda: confusion_counts(truth, now["labels"], words),
        "matrix products of one block alone": products,
        "text, one word": lambda: model.text_encoder._encode(["traffic light"], tqdm(disable=True)),
    }
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        cv2.imwrite(str(Path(folder) / "photo.jpg"), random_photo(size, 0)[:, :, ::-1])
        seconds = medians(ways, args.repeats, model.device)
    windows, length, width = now["tokens"].shape
    flop = 2 * windows * length * sum(matrix.numel() for matrix in matrices)
    rate = count * (flop + 4 * windows * length**2 * width) / seconds[f"encode ({count} blocks)"]
    machine_rate = flop / seconds["matrix products of one block alone"]
    rates = {"encoder, GFLOP/s": rate / 1e9, "matrix products, GFLOP/s": machine_rate / 1e9}
    return {"size": size_name, "words": words, "seconds": seconds, **rates}


def peak_memory(model: ClearCLIP, methods: list[Method], words: int = 171) -> float:
    """MB beyond what was in use before, while a 1024×2048 image is compared with words, in windows of 448."""
    image, text = model.normalize(resize_to_protocol(random_photo(SIZES["city"], 0))), random_text(model, words)
    cuda, status = model.device.type == "cuda", Path("/proc/self/status")
    if not cuda and not status.is_file():
        return float("nan")

    def read(field: str) -> int:
        return 1024 * int(re.search(rf"{field}:\s+(\d+)", status.read_text())[1])

    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
        before = read("VmRSS")
    model.predict([image], text, [SIZES["city"]], methods=methods or [model.method])
    return ((torch.cuda.max_memory_allocated() if cuda else read("VmHWM")) - before) / 1e6


def machine(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", path.read_text()) if path.is_file() else None
    return f"{found[1] if found else platform.processor()}, {torch.get_num_threads()} threads"


def show(result: dict[str, Any]) -> None:
    """Print the table: a row for each way, with images per second and its time as a multiple of the first one's."""
    table = Table(title=f"{result['model']}, {result['precision']}, {result['machine']}, PyTorch {torch.__version__}")
    table.add_column()
    for row in result["speed"]:
        table.add_column(f"{row['size']}, {row['words']} words\nimages/s", justify="right")
        table.add_column("time", justify="right")
    for way in result["speed"][0]["seconds"]:
        times = [(row["images"] / row["seconds"][way], row["seconds"][way], row["seconds"]) for row in result["speed"]]
        cells = [(f"{speed:.2f}", f"{own / next(iter(ways.values())):.2f} ×") for speed, own, ways in times]
        table.add_row(way, *(cell for pair in cells for cell in pair))
    console = Console()
    console.print(table)
    for words, peak in result["peak_memory_mb"].items():
        console.print(f"peak memory beyond the weights, {words} words, 1024×2048: {peak:.0f} MB")
    for row in result.get("parts", ()):
        table = Table(title=f"one image, {row['size']}, {row['words']} words")
        for column in ("", "ms", "share"):
            table.add_column(column, justify="right" if column else "left")
        total = sum(list(row["seconds"].values())[:6])
        for number, (name, seconds) in enumerate(row["seconds"].items()):
            table.add_row(name, f"{1000 * seconds:.1f}", f"{seconds / total:.1%}" if number < 6 else "")
        console.print(table, *(f"{name}: {row[name]:.0f}" for name in row if "FLOP" in name), sep="\n")


def main() -> int:
    """Measure and show."""
    parser = CommandParser(prog="benchmark.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", nargs="+", default=["ViT-B-16"], help="OpenCLIP names (default ViT-B-16)")
    add(
        "--methods", nargs="+", default=[], metavar="METHOD", help="time these instead: each alone, and all in one pass"
    )
    add("--words", nargs="+", type=int, default=[21, 171])
    add("--memory-words", nargs="*", type=int, default=[171, 1000], help="words of the memory's measurement")
    add("--sizes", nargs="+", choices=SIZES, default=["coco", "city"])
    add("--device", help="cpu, cuda, cuda:N or mps")
    add("--precision", default="auto", choices=PRECISIONS)
    add("--images", type=int, default=2, help="per batch")
    add("--repeats", type=int, default=5)
    add("--workers", type=int, default=2, help="processes that read files")
    add("--window-batch", type=int)
    add("--out", default="outputs/benchmark.json", type=Path)
    args = parser.parse_args()
    if min(args.images, args.repeats, args.workers + 1, *args.words) < 1:
        raise UserError("--images, --repeats and --words must be at least 1, --workers at least 0")
    check_folder("--out", args.out.parent)
    methods, results = [build_method(name) for name in args.methods], []
    for name in args.model:
        torch.manual_seed(0)
        options = dict(device=args.device, precision=args.precision, window_batch=args.window_batch)
        model = ClearCLIP.from_pretrained(name, "random", **options)
        # Memory first, before the allocator has kept anything from other work.
        result = {"model": name, "precision": model.precision, "machine": machine(model.device)}
        result["peak_memory_mb"] = {words: peak_memory(model, methods, words) for words in args.memory_words}
        sizes = [(size, words) for size in args.sizes for words in args.words]
        result["speed"] = [compare(model, size, words, methods, args) for size, words in sizes]
        if not methods:
            result["parts"] = [parts(model, args.sizes[0], words, args) for words in args.words]
        show(result)
        results.append(result)
    print(f"figures: {write_text_atomically(args.out, json.dumps(results, indent=1))}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

"""Is a benchmark complete? Folders, list file, every image and mask, and what the files hold.

Works from the config alone and before the dataset is built: MMSegmentation's dataset classes skip what is missing or
stop with an assertion that does not name it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clearclip.data.benchmark import PREPARE, Benchmark
from clearclip.data.parallel import parallel_map
from clearclip.errors import UserError
from clearclip.text.words import ClassWords

#: EXIF orientations that turn an image by 90°; OpenCV applies them when it reads the image.
_TURNED = {5, 6, 7, 8}


class Problem(NamedTuple):
    """What is wrong, with the culprit, and what to do about it."""

    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.fault}; {self.remedy}"


class Pair(NamedTuple):
    """An image and its mask."""

    image: Path
    mask: Path


@dataclass
class Report:
    """What a check found.

    Attributes:
        benchmark: where the files should be.
        listed: images that belong to it: by its list file, else those in the folder.
        images, masks: of these, how many are there.
        opened: pairs of image and mask that were opened.
        sizes: of these, pairs of the same size.
        ids: of these, masks whose ids are all valid.
        problems: what stands in the way of an evaluation, or of one that can be compared.
        notes: remarks.
    """

    benchmark: Benchmark
    listed: int = 0
    images: int = 0
    masks: int = 0
    opened: int = 0
    sizes: int = 0
    ids: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Nothing is missing and nothing is wrong."""
        return not self.problems


def check_dataset(cfg: Any, full: bool = False, sample: int = 32, nproc: int = 1) -> Report:
    """Check a config's dataset.

    Args:
        cfg: a config with ``test_dataloader.dataset``; ``model.name_path`` or ``model.class_names`` and
            ``expected_images`` are compared where they are given.
        full: open every image and mask.
        sample: else open this many pairs, evenly spaced.
        nproc: number of processes that open files.

    Raises:
        UserError: the config itself cannot be checked.
    """
    report, pairs = _list_pairs(cfg)
    expected = report.benchmark.expected
    if report.listed and expected is not None and report.listed != expected:
        report.problems.append(Problem(_number(report), PREPARE))
    _open_pairs(report, pairs if full else _spread(pairs, sample), decode_images=True, nproc=nproc)
    return report


def check_cheap(cfg: Any, sample: int = 4) -> list[str]:
    """What ``eval.py`` checks before it loads a model: lists folders and opens a few files.

    Args:
        cfg: as for :func:`check_dataset`.
        sample: number of pairs of image (header only) and mask to open.

    Returns:
        Remarks, such as that the number of images is not the published benchmark's.

    Raises:
        UserError: root or list file missing, list or folder empty, a listed image or its mask missing, another number
            of class names than classes, masks of another size or with ids beyond the classes.
    """
    report, pairs = _list_pairs(cfg)
    if not report.problems:
        _open_pairs(report, _spread(pairs, sample), decode_images=False, nproc=1)
    if report.problems:
        raise UserError(str(report.problems[0]))
    expected = report.benchmark.expected
    if expected is not None and report.listed != expected:
        return [_number(report)]
    return []


def _number(report: Report) -> str:
    benchmark = report.benchmark
    source = benchmark.list_file or benchmark.images
    return f"{source} has {report.listed:,} images, the published benchmark has {benchmark.expected:,}"


def _list_pairs(cfg: Any) -> tuple[Report, list[Pair]]:
    """Everything that opens no file but the list and the names file. Returns the pairs of which both files exist."""
    benchmark = Benchmark.from_config(cfg)
    report = Report(benchmark)
    _check_class_names(cfg, report)
    if not benchmark.root.is_dir():
        where = "" if benchmark.root.is_absolute() else f" in {Path.cwd()}"
        report.problems.append(
            Problem(
                f"root {benchmark.root} of {benchmark.name} does not exist{where}",
                f"{PREPARE}, or give --data-root or CLEARCLIP_DATA",
            )
        )
        return report, []
    images = _list_files(benchmark.images)
    names = _names(report, images)
    masks = _list_files(benchmark.masks) if names else {}
    report.listed = len(names)
    report.images = _count(report, "image", names, benchmark.images, benchmark.image_suffix, images, PREPARE)
    report.masks = _count(report, "mask", names, benchmark.masks, benchmark.mask_suffix, masks, benchmark.mask_remedy)
    pairs = [
        Pair(benchmark.images / (name + benchmark.image_suffix), benchmark.masks / (name + benchmark.mask_suffix))
        for name in names
        if images.get(name + benchmark.image_suffix) and masks.get(name + benchmark.mask_suffix)
    ]
    return report, pairs


def _check_class_names(cfg: Any, report: Report) -> None:
    model = cfg.get("model") or {}
    if model.get("class_names") is not None:
        words, source = ClassWords.parse(model["class_names"], "class_names"), "class_names"
    elif model.get("name_path") is not None:
        words, source = ClassWords.read(model["name_path"]), f"names file {model['name_path']}"
    else:
        return
    if len(words) != report.benchmark.classes:
        report.problems.append(
            Problem(
                f"{source} has {len(words)} classes, {report.benchmark.name} has {report.benchmark.classes}",
                "give one line for each class, in label order",
            )
        )


def _names(report: Report, images: dict[str, bool]) -> list[str]:
    """The images' names without suffix, from the list file or the folder."""
    benchmark = report.benchmark
    path, suffix = benchmark.list_file, benchmark.image_suffix
    if path is None or path.is_dir():
        names = sorted(name.removesuffix(suffix) for name in images if name.endswith(suffix))
        if not benchmark.images.is_dir():
            report.problems.append(Problem(f"folder {benchmark.images} does not exist", PREPARE))
        elif not names:
            report.problems.append(Problem(f"folder {benchmark.images} has no image (*{suffix})", PREPARE))
        return names
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except FileNotFoundError:
        report.problems.append(Problem(f"list file {path} does not exist", PREPARE))
        return []
    except (OSError, UnicodeDecodeError) as error:
        report.problems.append(Problem(f"list file {path} cannot be read ({error})", PREPARE))
        return []
    names = list(dict.fromkeys(line for line in lines if line))
    if not names:
        report.problems.append(Problem(f"list file {path} is empty", PREPARE))
    elif "" in lines:
        report.problems.append(Problem(f"line {lines.index('') + 1} of list file {path} is blank", "remove it"))
    elif len(names) < len(lines):
        (twice, _), *_ = Counter(lines).most_common(1)
        report.problems.append(
            Problem(f"list file {path} has {twice} more than once", "an image counts once: remove repeated lines")
        )
    return names


def _count(
    report: Report, what: str, names: list[str], folder: Path, suffix: str, present: dict[str, bool], remedy: str
) -> int:
    """How many of the files are there; a problem where some are not."""
    lost = [name + suffix for name in names if not present.get(name + suffix)]
    if lost:
        dangling = lost[0] in present
        fault = f"{what} {folder / lost[0]} {'is a link to a file that does not exist' if dangling else 'is missing'}"
        more = f" ({len(lost):,} of {len(names):,} are missing)" if len(lost) > 1 else ""
        report.problems.append(Problem(fault + more, remedy))
    return len(names) - len(lost)


def _list_files(folder: Path) -> dict[str, bool]:
    """Files below a folder as relative POSIX paths, without hidden ones; False for links that lead nowhere."""
    files: dict[str, bool] = {}
    pending = [(folder, "")] if folder.is_dir() else []
    while pending:
        directory, prefix = pending.pop()
        # Listing a folder is far quicker than asking for each of its files, above all over a network.
        for entry in os.scandir(directory):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                pending.append((Path(entry.path), f"{prefix}{entry.name}/"))
            else:
                files[prefix + entry.name] = not entry.is_symlink() or Path(entry.path).exists()
    return files


def _spread(pairs: list[Pair], count: int) -> list[Pair]:
    """So many of the pairs, evenly spaced."""
    positions = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int)
    return [pairs[position] for position in positions]


def _open_pairs(report: Report, pairs: Sequence[Pair], decode_images: bool, nproc: int) -> None:
    benchmark = report.benchmark
    open_pair = partial(_open_pair, valid=benchmark.valid_ids, decode_image=decode_images)
    faults: dict[str, list[str]] = {}
    for same_size, valid_ids, found in parallel_map(open_pair, pairs, nproc, benchmark.name):
        report.opened += 1
        report.sizes += same_size
        report.ids += valid_ids
        for kind, fault in found:
            faults.setdefault(kind, []).append(fault)
    for kind, found in faults.items():
        more = f" (and {len(found) - 1:,} more of the {report.opened:,} opened)" if len(found) > 1 else ""
        remedy = benchmark.mask_remedy if kind in ("channels", "ids") else "unpack or convert it again"
        report.problems.append(Problem(found[0] + more, remedy))


def _open_pair(pair: Pair, valid: np.ndarray, decode_image: bool) -> tuple[bool, bool, list[tuple[str, str]]]:
    """Open an image and its mask.

    Returns:
        Whether they have the same size, whether all ids are valid, and faults by kind.
    """
    faults = []
    size = ids = None
    try:
        with Image.open(pair.image) as image:
            size = image.size[::-1] if image.getexif().get(0x0112) not in _TURNED else image.size
            if decode_image:
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        faults.append(("image", f"image {pair.image} cannot be read ({error})"))
    try:
        with Image.open(pair.mask) as image:
            ids = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        faults.append(("mask", f"mask {pair.mask} cannot be read ({error})"))
    same_size = size is not None and ids is not None and ids.shape[:2] == size
    if size is not None and ids is not None and not same_size:
        height, width = ids.shape[:2]
        faults.append(("size", f"mask {pair.mask} is {width}x{height}, its image {size[1]}x{size[0]}"))
    if ids is None:
        return same_size, False, faults
    if ids.ndim != 2:
        faults.append(("channels", f"mask {pair.mask} has {ids.shape[2]} channels, a mask has one with the ids"))
        return same_size, False, faults
    # Of 16-bit masks MMSegmentation would keep the low byte only.
    wrong = [int(value) for value in np.unique(ids) if not (0 <= value < 256 and valid[int(value)])]
    if wrong:
        some = ", ".join(map(str, wrong[:5])) + (", …" if len(wrong) > 5 else "")
        largest = int(np.flatnonzero(valid[:255]).max())
        faults.append(("ids", f"mask {pair.mask} has id(s) {some}, valid are 0..{largest} and 255"))
    return same_size, not wrong, faults

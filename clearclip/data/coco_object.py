"""COCO-Object from COCO-Stuff 164k: the 80 things keep their masks, everything else becomes background.

COCO-Stuff's raw masks (``stuffthingmaps_trainval2017.zip``) hold COCO's category id minus 1: things 0..89 with
COCO's ten gaps, stuff 91..181, 255 where nothing is labelled.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from clearclip.data.parallel import parallel_map
from clearclip.errors import UserError

#: Thing ids that COCO never gave out: categories 12, 26, 29, 30, 45, 66, 68, 69, 71 and 83.
GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82)
THING_IDS = tuple(raw for raw in range(90) if raw not in GAPS)
LAST_ID = 181
UNLABELLED = 255
#: No raw mask has these: the gaps, and the removed category 91 between things and stuff.
UNUSED_IDS = frozenset({*GAPS, 90})
#: COCO 2017.
SPLIT_SIZES = {"val": 5000, "train": 118287}
MASK_SUFFIX = "_instanceTrainIds.png"
#: Masks that are decoded before anything is written; of the others only the header is read.
SAMPLE = 64


def lookup_table() -> np.ndarray:
    """COCO-Object's label for each raw id: (256,) uint8, the things in ascending order 1..80, all else 0."""
    table = np.zeros(256, np.uint8)
    table[list(THING_IDS)] = np.arange(1, len(THING_IDS) + 1)
    return table


def convert_mask(raw: np.ndarray) -> np.ndarray:
    """Raw COCO-Stuff ids to COCO-Object's labels: (H, W) uint8 to (H, W) uint8."""
    return lookup_table()[raw]


class Pair(NamedTuple):
    """An image, its raw mask, and where both go."""

    image: Path
    raw: Path
    out_image: Path
    out_mask: Path


@dataclass
class SplitReport:
    """What a conversion did and found.

    Attributes:
        split: "val" or "train".
        masks: masks in the output, all of them whole.
        written: of these, written by this run; the others were there already, with the same content.
        raw_ids: ids seen in the raw masks, ascending.
        faults: what makes the result unfit for evaluation.
        notes: what is unusual but does no harm.
    """

    split: str
    masks: int = 0
    written: int = 0
    raw_ids: tuple[int, ...] = ()
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def things(self) -> int:
        """How many of the 80 things were seen."""
        return len(set(self.raw_ids) & set(THING_IDS))

    @property
    def stuff(self) -> int:
        """How many of the 91 stuff ids were seen."""
        return len(set(self.raw_ids) & set(range(91, LAST_ID + 1)))


def convert(
    coco_stuff: Path, out: Path, splits: Sequence[str] = ("val",), nproc: int = 1, copy: bool = False
) -> list[SplitReport]:
    """Convert COCO-Stuff 164k; can be stopped and run again at any moment.

    Args:
        coco_stuff: folder with ``images/{split}2017/*.jpg`` and ``annotations/{split}2017/*.png``.
        out: gets ``images/{split}2017/*.jpg`` (relative links) and
            ``annotations/{split}2017/*_instanceTrainIds.png``. May be ``coco_stuff`` itself.
        splits: of "val" and "train".
        nproc: number of processes.
        copy: copy the images.

    Raises:
        UserError: the input is not COCO-Stuff with raw masks; told before anything is written, except for wrong ids
            beyond the first :data:`SAMPLE` masks looked at. Or something cannot be written.
    """
    if not coco_stuff.is_dir():
        raise UserError(f"folder {coco_stuff} does not exist; give the root of COCO-Stuff 164k")
    if out.exists() and not out.is_dir():
        raise UserError(f"output {out} is a file; give -o a folder")
    pairs = {split: _find_pairs(coco_stuff, out, split) for split in splits}
    for split, found in pairs.items():
        _check_before(found, split, nproc)
    return [_convert_split(found, split, nproc, copy) for split, found in pairs.items()]


def _find_pairs(coco_stuff: Path, out: Path, split: str) -> list[Pair]:
    folder = f"{split}2017"
    images, masks = coco_stuff / "images" / folder, coco_stuff / "annotations" / folder
    for kind, path, source in (
        ("images", images, f"{folder}.zip"),
        ("raw masks", masks, "stuffthingmaps_trainval2017.zip"),
    ):
        if not path.is_dir():
            raise UserError(
                f"{coco_stuff} is no COCO-Stuff 164k: its {kind} should lie in {path}; "
                f"unpack {source} there or give another folder"
            )
    found = sorted(path for path in masks.glob("*.png") if not path.name.startswith("."))
    raw = [path for path in found if not path.stem.endswith("TrainIds")]
    if not raw:
        what = "only converted masks (*TrainIds.png)" if found else "no masks (*.png)"
        raise UserError(f"{masks} has {what}; unpack the raw ones of stuffthingmaps_trainval2017.zip there")
    pairs = [
        Pair(
            images / f"{path.stem}.jpg",
            path,
            out / "images" / folder / f"{path.stem}.jpg",
            out / "annotations" / folder / f"{path.stem}{MASK_SUFFIX}",
        )
        for path in raw
    ]
    present = {path.name for path in images.glob("*.jpg")}
    missing = [pair.image for pair in pairs if pair.image.name not in present]
    if missing:
        raise UserError(
            f"image {missing[0]} is missing ({len(missing)} of {len(pairs)} masks have no image); "
            f"unpack {folder}.zip into {images.parent}"
        )
    return pairs


def _check_before(pairs: list[Pair], split: str, nproc: int) -> None:
    """Look at every header and at some masks before anything is written."""
    for _ in parallel_map(_check_header, pairs, nproc, f"{split}: headers"):
        pass
    step = max(1, len(pairs) // SAMPLE)
    seen = set()
    for pair in pairs[::step][:SAMPLE]:
        seen |= set(_ids(_read_raw(pair.raw)))
    # labelTrainIds run through 0..170 without a gap.
    if seen & UNUSED_IDS and not any(170 < raw <= LAST_ID for raw in seen):
        raise UserError(
            f"the masks in {pairs[0].raw.parent} look like labelTrainIds (they use ids {_join(seen & UNUSED_IDS)}, "
            "which raw masks never have); give the raw ones of stuffthingmaps_trainval2017.zip"
        )


def _check_header(pair: Pair) -> None:
    with _opened(pair.raw) as mask, _opened(pair.image) as image:
        if mask.mode not in ("L", "P"):
            raise UserError(
                f"mask {pair.raw} has {len(mask.getbands())} channel(s) of mode {mask.mode}, a raw mask has one "
                "of 8 bits; give the ones of stuffthingmaps_trainval2017.zip"
            )
        if mask.size != image.size:
            raise UserError(
                f"mask {pair.raw} is {mask.width}x{mask.height}, image {pair.image} is {image.width}x{image.height}; "
                "they are not of the same dataset"
            )


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}); unpack it again") from error


def _read_raw(path: Path) -> np.ndarray:
    """(H, W) uint8 ids.

    Raises:
        UserError: the file is damaged or has ids that COCO-Stuff does not know.
    """
    with _opened(path) as image:
        try:
            raw = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"mask {path} is damaged ({error}); unpack it again") from error
    wrong = [value for value in _ids(raw) if LAST_ID < value < UNLABELLED]
    if wrong:
        raise UserError(
            f"mask {path} has id(s) {_join(wrong)}; raw COCO-Stuff masks have 0..{LAST_ID} and {UNLABELLED} only"
        )
    return raw


def _ids(array: np.ndarray) -> list[int]:
    return np.flatnonzero(np.bincount(array.ravel(), minlength=256)).tolist()


def _convert_split(pairs: list[Pair], split: str, nproc: int, copy: bool) -> SplitReport:
    report = SplitReport(split)
    for folder in {pairs[0].out_image.parent, pairs[0].out_mask.parent}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made ({error.strerror}); give -o a folder you may write to") from error
    seen: set[int] = set()
    for ids, written in parallel_map(_convert_and_copy if copy else _convert_and_link, pairs, nproc, split):
        seen |= set(ids)
        report.masks += 1
        report.written += written
    report.raw_ids = tuple(sorted(seen))
    _check_after(report, pairs)
    return report


def _check_after(report: SplitReport, pairs: list[Pair]) -> None:
    """Compare the folders' contents with what should be there; remove what a killed run left half-written."""
    first = pairs[0]
    for folder in (first.out_image.parent, first.out_mask.parent):
        for unfinished in folder.glob(".*.part"):
            unfinished.unlink(missing_ok=True)
    expected = {pair.image.name for pair in pairs}
    for what, found in (
        ("image(s) have no raw mask", {path.name for path in first.image.parent.glob("*.jpg")} - expected),
        (
            f"image(s) in {first.out_image.parent} are none of this source; remove them or start in an empty folder",
            {path.name for path in first.out_image.parent.glob("*.jpg")} - expected,
        ),
        (
            f"mask(s) in {first.out_mask.parent} are none of this source; remove them or start in an empty folder",
            {path.name for path in first.out_mask.parent.glob(f"*{MASK_SUFFIX}")} - {p.out_mask.name for p in pairs},
        ),
    ):
        if found:
            report.faults.append(f"{len(found)} {what} (first: {min(found)})")
    unused = UNUSED_IDS & set(report.raw_ids)
    if unused:
        report.notes.append(f"id(s) {_join(unused)} are none that COCO-Stuff uses; they became background")
    if report.masks != SPLIT_SIZES[report.split]:
        report.notes.append(f"{report.masks:,} of the {SPLIT_SIZES[report.split]:,} masks of COCO's {report.split}2017")


def _convert_and_link(pair: Pair) -> tuple[list[int], bool]:
    return _convert_pair(pair, _link)


def _convert_and_copy(pair: Pair) -> tuple[list[int], bool]:
    return _convert_pair(pair, _copy)


def _convert_pair(pair: Pair, place: Callable[[Path, Path], None]) -> tuple[list[int], bool]:
    """Convert a mask and place its image. Returns the raw ids, and whether the mask had to be written."""
    raw = _read_raw(pair.raw)
    labels = convert_mask(raw)
    try:
        place(pair.image, pair.out_image)
        written = not _has(pair.out_mask, labels)
        if written:
            _atomically(pair.out_mask, lambda path: Image.fromarray(labels).save(path, format="PNG"))
    except OSError as error:
        raise UserError(
            f"{error.filename2 or error.filename or pair.out_mask} cannot be written ({error.strerror or error}); "
            "what is done so far is kept: mend it and run the same command again"
        ) from error
    return _ids(raw), written


def _has(path: Path, labels: np.ndarray) -> bool:
    """Whether the file is there, whole and with these labels."""
    try:
        with Image.open(path) as image:
            return image.mode == "L" and np.array_equal(np.asarray(image), labels)
    except (OSError, SyntaxError, ValueError):
        return False


def _link(source: Path, target: Path) -> None:
    if _is_there(source, target, links=True):
        return
    relative = os.path.relpath(source.resolve(), target.parent.resolve())
    _atomically(target, lambda path: path.symlink_to(relative))


def _copy(source: Path, target: Path) -> None:
    if not _is_there(source, target, links=False):
        _atomically(target, lambda path: shutil.copy2(source, path))


def _is_there(source: Path, target: Path, links: bool) -> bool:
    """Whether the image is in place. A link that leads elsewhere is replaced, a file never."""
    if target.is_symlink() and not (links and target.exists() and target.samefile(source)):
        return False
    if not target.exists():
        return False
    if target.samefile(source) or target.stat().st_size == source.stat().st_size:
        return True
    raise UserError(f"{target} is another image than {source}; remove it or give -o an empty folder")


def _atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Make a file beside its place and move it there: a reader sees all of it or nothing."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        unfinished.unlink(missing_ok=True)
        write(unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def _join(values: Sequence[int] | set[int] | frozenset[int], most: int = 5) -> str:
    listed = sorted(values)
    return ", ".join(map(str, listed[:most])) + (", …" if len(listed) > most else "")

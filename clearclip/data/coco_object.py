"""COCO-Object from COCO-Stuff 164k: the 80 things keep their masks, everything else becomes background.

COCO-Stuff's raw masks (``stuffthingmaps_trainval2017.zip``) hold COCO's category id minus 1: things 0..89 with
COCO's ten gaps, stuff 91..181, 255 where nothing is labelled.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.contrib.concurrent import thread_map

from clearclip.errors import UserError
from clearclip.files import write_atomically

#: Thing ids that COCO never gave out: categories 12, 26, 29, 30, 45, 66, 68, 69, 71 and 83.
GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82)
THING_IDS = tuple(raw for raw in range(90) if raw not in GAPS)
LAST_ID = 181
UNLABELLED = 255
#: No raw mask has these: the gaps, and the removed category 91 between things and stuff.
UNUSED_IDS = frozenset({*GAPS, 90})
MASK_SUFFIX = "_instanceTrainIds.png"
#: Pairs that are read before anything is written.
SAMPLE = 64

_SOURCE = "stuffthingmaps_trainval2017.zip"


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
        written: of these, written by this run; the others existed already, with the same content.
        raw_ids: ids seen in the raw masks.
        faults: files that do not belong together.
    """

    split: str
    masks: int
    written: int
    raw_ids: set[int]
    faults: list[str]


def convert_mask(raw: np.ndarray) -> np.ndarray:
    """Raw COCO-Stuff ids, (H, W) uint8, to COCO-Object's labels, (H, W) uint8: things 1..80, all else 0."""
    table = np.zeros(256, np.uint8)
    table[list(THING_IDS)] = np.arange(1, len(THING_IDS) + 1)
    return table[raw]


def convert(
    coco_stuff: Path, out: Path, splits: Iterable[str] = ("val",), threads: int = 1, copy: bool = False
) -> list[SplitReport]:
    """Convert COCO-Stuff 164k; can be stopped and run again at any moment.

    Args:
        coco_stuff: folder with ``images/{split}2017/*.jpg`` and ``annotations/{split}2017/*.png``.
        out: gets ``images/{split}2017/*.jpg`` (relative links) and
            ``annotations/{split}2017/*_instanceTrainIds.png``. May be ``coco_stuff`` itself.
        splits: of "val" and "train".
        threads: how many masks are converted at a time.
        copy: copy the images.

    Raises:
        UserError: the input is not COCO-Stuff with raw masks, said before anything is written unless it shows only
            beyond the :data:`SAMPLE` masks looked at first. Or something cannot be written.
    """
    if not coco_stuff.is_dir():
        raise UserError(f"folder {coco_stuff} does not exist; give the root of COCO-Stuff 164k")
    if out.exists() and not out.is_dir():
        raise UserError(f"output {out} is a file; give -o a folder")
    pairs = {split: _find_pairs(coco_stuff, out, split) for split in splits}
    for found in pairs.values():
        _check_sample(found)
    return [_convert_split(found, split, threads, copy) for split, found in pairs.items()]


def _find_pairs(coco_stuff: Path, out: Path, split: str) -> list[Pair]:
    folder = f"{split}2017"
    images, masks = coco_stuff / "images" / folder, coco_stuff / "annotations" / folder
    for kind, path, source in (("images", images, f"{folder}.zip"), ("raw masks", masks, _SOURCE)):
        if not path.is_dir():
            raise UserError(
                f"{coco_stuff} is no COCO-Stuff 164k: its {kind} should be in {path}; "
                f"unpack {source} there or give another folder"
            )
    found = sorted(path.stem for path in masks.glob("[!.]*.png"))
    stems = [stem for stem in found if not stem.endswith("TrainIds")]
    if not stems:
        what = "only converted masks (*TrainIds.png)" if found else "no masks (*.png)"
        raise UserError(f"{masks} has {what}; unpack the raw ones of {_SOURCE} there")
    present = {path.stem for path in images.glob("*.jpg")}
    missing = [stem for stem in stems if stem not in present]
    if missing:
        raise UserError(
            f"image {images / missing[0]}.jpg is missing ({len(missing)} of {len(stems)} masks have no image); "
            f"unpack {folder}.zip into {images.parent}"
        )
    out_images, out_masks = out / "images" / folder, out / "annotations" / folder
    return [
        Pair(images / f"{s}.jpg", masks / f"{s}.png", out_images / f"{s}.jpg", out_masks / f"{s}{MASK_SUFFIX}")
        for s in stems
    ]


def _check_sample(pairs: list[Pair]) -> None:
    seen = {int(value) for pair in pairs[:: max(1, len(pairs) // SAMPLE)] for value in np.unique(_read_raw(pair))}
    unused = sorted(seen & UNUSED_IDS)
    # labelTrainIds run through 0..170 without a gap.
    if unused and not any(170 < raw <= LAST_ID for raw in seen):
        raise UserError(
            f"the masks in {pairs[0].raw.parent} look like labelTrainIds (they use ids {unused[:5]}, "
            f"which raw masks never have); give the raw ones of {_SOURCE}"
        )


def _read_raw(pair: Pair) -> np.ndarray:
    """A raw mask's ids, (H, W) uint8.

    Raises:
        UserError: a file is damaged, the mask is none of COCO-Stuff's, or the image has another size.
    """
    path = pair.image
    try:
        with Image.open(pair.image) as image:
            size = image.size
        path = pair.raw
        with Image.open(pair.raw) as mask:
            raw = np.asarray(mask)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}); unpack it again") from error
    if raw.ndim != 2 or raw.dtype != np.uint8:
        raise UserError(
            f"mask {path} has {raw.shape[2] if raw.ndim > 2 else 1} channel(s) of {8 * raw.itemsize} bits, "
            f"a raw mask has one of 8 bits; give the ones of {_SOURCE}"
        )
    if raw.shape[::-1] != size:
        raise UserError(
            f"mask {path} is {raw.shape[1]}x{raw.shape[0]}, image {pair.image} is {size[0]}x{size[1]}; "
            "they are not of the same dataset"
        )
    wrong = np.unique(raw[(raw > LAST_ID) & (raw < UNLABELLED)]).tolist()
    if wrong:
        some = ", ".join(map(str, wrong[:5]))
        raise UserError(
            f"mask {path} has id(s) {some}, raw COCO-Stuff masks have 0..{LAST_ID} and {UNLABELLED} only; "
            f"give the ones of {_SOURCE}"
        )
    return raw


def _convert_split(pairs: list[Pair], split: str, threads: int, copy: bool) -> SplitReport:
    def convert_pair(pair: Pair) -> tuple[set[int], bool]:
        """Place the image and convert the mask. Returns the raw ids, and whether the mask had to be written."""
        raw = _read_raw(pair)
        try:
            _place(pair.image, pair.out_image, copy)
            return set(np.unique(raw).tolist()), _write(pair.out_mask, convert_mask(raw))
        except OSError as error:
            raise UserError(
                f"{error.filename2 or error.filename or pair.out_mask} cannot be written ({error.strerror or error}); "
                "finished files are kept: solve this and run the same command again"
            ) from error

    done = thread_map(convert_pair, pairs, max_workers=threads, desc=split, unit="file", disable=None)
    first, faults = pairs[0], []
    for what, folder, pattern, expected in (
        ("image(s) without raw mask", first.image.parent, "*.jpg", {pair.image for pair in pairs}),
        ("image(s) of another source", first.out_image.parent, "*.jpg", {pair.out_image for pair in pairs}),
        ("mask(s) of another source", first.out_mask.parent, f"[!.]*{MASK_SUFFIX}", {pair.out_mask for pair in pairs}),
    ):
        others = set(folder.glob(pattern)) - expected
        if others:
            faults.append(f"{folder} has {len(others)} {what}, such as {min(others).name}")
    raw_ids = set().union(*(ids for ids, _ in done))
    return SplitReport(split, len(done), sum(written for _, written in done), raw_ids, faults)


def _write(path: Path, labels: np.ndarray) -> bool:
    """Write a mask, unless the file exists with these labels."""
    try:
        with Image.open(path) as image:
            if image.mode == "L" and np.array_equal(np.asarray(image), labels):
                return False
    except (OSError, SyntaxError, ValueError):
        pass  # missing or damaged
    write_atomically(path, lambda temporary: Image.fromarray(labels).save(temporary))
    return True


def _place(source: Path, target: Path, copy: bool) -> None:
    """Link or copy an image. A link that leads elsewhere is replaced, a file never."""
    if target.is_symlink() and (copy or not target.exists() or not target.samefile(source)):
        target.unlink()
    if target.exists():
        if not target.samefile(source) and target.stat().st_size != source.stat().st_size:
            raise UserError(f"{target} is another image than {source}; remove it or give -o an empty folder")
    elif copy:
        write_atomically(target, lambda temporary: shutil.copyfile(source, temporary))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))

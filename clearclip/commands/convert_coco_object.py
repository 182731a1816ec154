"""Make COCO-Object (background and 80 things) from COCO-Stuff 164k's raw masks.

python datasets/cvt_coco_object.py data/coco_stuff164k -o data/coco_object

The 80 things keep their masks, everything else becomes background. Raw masks (``stuffthingmaps_trainval2017.zip``) hold
COCO's category id minus 1: things 0..89 with COCO's ten gaps, stuff 91..181, 255 where nothing is labelled. It can be
stopped at any moment; the same command continues with what is missing.
"""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, write_atomically
from clearclip.utils.printable import printable

# Functions import what they need themselves, so that --help and misspelled options answer at once.
if TYPE_CHECKING:
    import numpy as np

#: Categories that COCO's list of labels has and no annotation uses: street sign, hat, shoe, eye glasses, plate, mirror,
#: window, desk, door, blender, hair brush. The last one lies between things and stuff.
UNUSED_CATEGORIES = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
#: The same as ids of raw masks.
UNUSED_IDS = tuple(category - 1 for category in UNUSED_CATEGORIES)
SAMPLE = 64  # masks that are read before anything is written
_RAW = "give the raw masks of stuffthingmaps_trainval2017.zip"


@cache
def label_of_raw_id() -> np.ndarray:
    """Raw id → label, (256,) uint8: things in ascending order 1..80, all else 0."""
    import numpy as np

    table = np.zeros(256, np.uint8)
    table[[raw_id for raw_id in range(90) if raw_id not in UNUSED_IDS]] = np.arange(1, 81)
    return table


@cache
def is_raw_id() -> np.ndarray:
    """Raw id → whether a raw mask may have it, (256,) bool."""
    import numpy as np

    table = np.zeros(256, bool)
    table[[*range(182), 255]] = True
    table[list(UNUSED_IDS)] = False
    return table


def convert(
    coco_stuff: Path, coco_object: Path, split: str = "val", threads: int = 1, copy: bool = False
) -> tuple[int, int]:
    """Convert a split of COCO-Stuff 164k; can be stopped and run again at any moment.

    Args:
        coco_stuff: folder with ``images/{split}2017/*.jpg`` and ``annotations/{split}2017/*.png``.
        coco_object: gets ``images/{split}2017/*.jpg`` (relative links) and
            ``annotations/{split}2017/*_instanceTrainIds.png``. May be ``coco_stuff`` itself.
        split: "val" or "train".
        threads: how many masks are converted at a time.
        copy: copy the images.

    Returns:
        Number of masks, and how many of them were written now: the others were there already.

    Raises:
        UserError: the input is not COCO-Stuff with raw masks (said before anything is written, unless it shows only
            beyond the masks looked at first), or something cannot be written.
    """
    from PIL import Image
    from tqdm.contrib.concurrent import thread_map

    split_folder = f"{split}2017"
    images = coco_stuff / "images" / split_folder
    masks = coco_stuff / "annotations" / split_folder
    object_images = coco_object / "images" / split_folder
    object_masks = coco_object / "annotations" / split_folder
    stems = sorted(path.stem for path in masks.glob("[!.]*.png") if not path.stem.endswith("TrainIds"))
    if not stems:
        raise UserError(f"no raw masks (*.png) in {masks}; {_RAW}, unpacked there")
    without_image = sorted(set(stems) - {path.stem for path in images.glob("*.jpg")})
    if without_image:
        fault = f"image {images / without_image[0]}.jpg is missing ({len(without_image):,} of {len(stems):,} are)"
        raise UserError(f"{fault}; unpack {split}2017.zip into {images.parent}")

    def read(stem: str) -> np.ndarray:
        return _read_raw(masks / f"{stem}.png", images / f"{stem}.jpg")

    # Masks of another kind show it sooner or later; most often among the first ones, before anything is written.
    for stem in stems[:: -(-len(stems) // SAMPLE)]:
        read(stem)

    def convert_one(stem: str) -> bool:
        image, path = images / f"{stem}.jpg", object_masks / f"{stem}_instanceTrainIds.png"
        labels = label_of_raw_id()[read(stem)]
        try:
            if object_images.resolve() != images.resolve():
                _place(image, object_images / image.name, copy)
            if _holds(path, labels):
                return False
            write_atomically(path, lambda temporary: Image.fromarray(labels).save(temporary))
        except OSError as error:
            problem = f"{error.filename2 or error.filename or path} cannot be written ({error.strerror or error})"
            raise UserError(f"{problem}; solve this and run the same command again: what is finished stays") from error
        return True

    written = thread_map(convert_one, stems, max_workers=threads, desc=split, unit="file", disable=None)
    return len(stems), sum(written)


def _read_raw(path: Path, image_path: Path) -> np.ndarray:
    """A raw mask's ids, (H, W) uint8; a UserError where it is none of COCO-Stuff's, or its image has another size."""
    import numpy as np

    from clearclip.utils.images import open_image

    try:
        with open_image(image_path) as image, open_image(path) as mask:
            size, raw = image.size, np.asarray(mask)
    except UserError as error:
        raise UserError(f"{error}; unpack masks and images again") from error
    if raw.dtype != np.uint8 or raw.shape != size[::-1]:
        fault = f"mask {path} has {8 * raw.itemsize} bits and shape {raw.shape}, its image {size[::-1]}"
        raise UserError(f"{fault}: a raw mask has 8 bits, one channel and its image's size; {_RAW}")
    foreign = np.flatnonzero(np.bincount(raw.ravel(), minlength=256) * ~is_raw_id())
    if len(foreign):
        raise UserError(
            f"mask {path} has id(s) {foreign[:5].tolist()}, which no raw mask has: these are labelTrainIds or count "
            f"from 1 (masks that were written before this one are wrong, too); {_RAW}, where a person is 0"
        )
    return raw


def _holds(path: Path, labels: np.ndarray) -> bool:
    """Whether a file is there and has these labels."""
    import numpy as np

    from clearclip.utils.images import open_image

    try:
        with open_image(path) as image:
            return np.array_equal(np.asarray(image), labels)
    except UserError:  # missing or damaged
        return False


def _place(source: Path, target: Path, copy: bool) -> None:
    """Link or copy an image. Links are replaced, files are left alone."""
    if target.is_symlink():
        target.unlink()
    if target.exists():
        return
    if copy:
        write_atomically(target, lambda temporary: shutil.copyfile(source, temporary))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))


def run_convert_coco_object(args: Namespace) -> None:
    """Convert as the arguments say, and print what came out."""
    if args.nproc < 1:
        raise UserError(f"--nproc {args.nproc}: give 1 or more")
    check_folder("--out", args.out)
    splits = ("val", "train") if args.split == "both" else (args.split,)
    for split in splits:
        masks, written = convert(args.coco_stuff, args.out, split, args.nproc, args.copy)
        print(f"{split}: {masks:,} masks in {printable(args.out)}, {written:,} of them written now")

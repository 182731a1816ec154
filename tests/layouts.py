"""The eight benchmarks in miniature: the real folders, suffixes, list files and label conventions, drawn at random.

Nothing here uses the package: what it returns is the independent side of a comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Layout(NamedTuple):
    """A benchmark's files.

    Attributes:
        root: the dataset's own folder under ``data/``.
        images, masks: folders under the root, and what follows an image's stem there, with ``*`` for the stem.
        ids: the smallest and the largest valid id in a mask file.
        unlabelled: whether masks have 255.
        stems: names as the dataset gives them; ``{}`` is the image's number.
        reduced: whether id 0 is ignored and all others move down by one.
        list_file: the list of the images, or None where the folder is the list.
        neighbour: suffix of files beside the masks in the real dataset that must not be read.
    """

    root: str
    images: str
    masks: str
    ids: tuple[int, int]
    unlabelled: bool
    stems: tuple[str, ...]
    reduced: bool = False
    list_file: str | None = None
    neighbour: str | None = None

    @property
    def num_classes(self) -> int:
        return self.ids[1] - self.ids[0] + (not self.reduced)


VOC = Layout(
    "VOCdevkit/VOC2012", "JPEGImages/*.jpg", "SegmentationClass/*.png", (0, 20), True,
    ("2007_{:06d}", "2011_{:06d}"), list_file="ImageSets/Segmentation/val.txt",
)  # fmt: skip
CONTEXT = Layout(
    "VOCdevkit/VOC2010", "JPEGImages/*.jpg", "SegmentationClassContext/*.png", (0, 59), False,
    ("2008_{:06d}", "2010_{:06d}"), list_file="ImageSets/SegmentationContext/val.txt",
)  # fmt: skip
LAYOUTS = {
    "voc21": VOC,
    "voc20": VOC._replace(reduced=True),
    "context60": CONTEXT,
    "context59": CONTEXT._replace(reduced=True),
    "coco_object": Layout(
        "coco_object", "images/val2017/*.jpg", "annotations/val2017/*_instanceTrainIds.png", (0, 80), False,
        ("{:012d}",),
    ),
    "coco_stuff164k": Layout(
        "coco_stuff164k", "images/val2017/*.jpg", "annotations/val2017/*_labelTrainIds.png", (0, 170), True,
        ("{:012d}",), neighbour=".png",
    ),
    "city_scapes": Layout(
        "cityscapes", "leftImg8bit/val/*_leftImg8bit.png", "gtFine/val/*_gtFine_labelTrainIds.png", (0, 18), True,
        ("frankfurt/frankfurt_000000_{:06d}", "munster/munster_{:06d}_000019", "lindau/lindau_{:06d}_000019"),
        neighbour="_gtFine_labelIds.png",
    ),
    "ade20k": Layout(
        "ade/ADEChallengeData2016", "images/validation/*.jpg", "annotations/validation/*.png", (0, 150), False,
        ("ADE_val_{:08d}",), reduced=True,
    ),
}  # fmt: skip


def random_image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Coloured blocks of 4 pixels, so that JPEG keeps them: (height, width, 3) uint8."""
    blocks = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def random_mask(rng: np.random.Generator, height: int, width: int, layout: Layout) -> np.ndarray:
    """Blocks of 3 pixels with any valid id; the first row has the extremes: (height, width) uint8."""
    low, high = layout.ids
    blocks = rng.integers(low, high + 1, (-(-height // 3), -(-width // 3)))
    if layout.unlabelled:
        blocks[rng.random(blocks.shape) < 0.1] = 255
    mask = blocks.repeat(3, axis=0).repeat(3, axis=1)[:height, :width].astype(np.uint8)
    mask[0, :4] = (low, low + 1, high, 255 if layout.unlabelled else high)
    return mask


def make_layout(name: str, root: str | Path, images: int = 3) -> dict:
    """Build a benchmark in miniature.

    Args:
        name: a key of :data:`LAYOUTS`: the config's name without ``cfg_``.
        root: takes the place of ``data/`` (``CLEARCLIP_DATA``).
        images: how many images belong to the benchmark; list-file benchmarks get one more that is not listed.

    Returns:
        ``data_root`` (Path; ``--data-root``), ``list_file`` (Path or None), ``num_classes``, and lists in the order of
        the evaluation: ``stems``, ``images`` and ``masks`` (Paths), ``raw`` (uint8 ids as in the files) and ``labels``
        (uint8; 0..num_classes-1, 255 where ignored).
    """
    layout = LAYOUTS[name]
    rng = np.random.default_rng(sorted(LAYOUTS).index(name))
    folder = Path(root) / layout.root
    stems = sorted(layout.stems[n % len(layout.stems)].format(7 * n + 1) for n in range(images))
    list_file = folder / layout.list_file if layout.list_file else None
    if list_file:
        rng.shuffle(stems)  # evaluation goes by the list, not by the alphabet
        list_file.parent.mkdir(parents=True)
        list_file.write_text("".join(f"{stem}\n" for stem in stems))
    made = dict(data_root=folder, list_file=list_file, num_classes=layout.num_classes, stems=stems)
    made |= dict(images=[], masks=[], raw=[], labels=[])
    for stem in [*stems, *([layout.stems[0].format(999)] if list_file else [])]:
        height, width = (int(side) for side in rng.integers(24, 45, 2))
        image_path, mask_path = (folder / pattern.replace("*", stem) for pattern in (layout.images, layout.masks))
        for path in (image_path, mask_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(rng, height, width)).save(image_path)
        mask = random_mask(rng, height, width, layout)
        image = Image.fromarray(mask)
        if layout.root == VOC.root:
            image.putpalette(rng.integers(0, 256, 768).tolist())
        image.save(mask_path)
        if layout.neighbour:
            other = random_mask(rng, height, width, layout)
            Image.fromarray(other).save(mask_path.with_name(Path(stem).name + layout.neighbour))
        labels = np.where((mask == 0) | (mask == 255), 255, mask - 1) if layout.reduced else mask
        if stem in stems:
            for key, value in (("images", image_path), ("masks", mask_path), ("raw", mask), ("labels", labels)):
                made[key].append(value)
    return made

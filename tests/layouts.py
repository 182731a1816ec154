"""The benchmarks in miniature: the real folders, suffixes, list files and label conventions, drawn at random.

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
        unlabelled: the id in masks that does not count, or None.
        stems: names as the dataset gives them; ``{}`` is the image's number.
        reduced: whether id 0 is ignored and all others move down by one.
        list_file: the list of the images, or None where the folder is the list.
        neighbour: suffix of files beside the masks in the real dataset that must not be read.
        order: the label of each class of the files, in the order of their ids, where the config has another order.
        size: height and width, where these are the real ones (udd5 and vdd: half of them).
        bmp: whether the images are BMP files named .png, as MMSegmentation's converter of iSAID leaves them.
    """

    root: str
    images: str
    masks: str
    ids: tuple[int, int]
    unlabelled: int | None
    stems: tuple[str, ...]
    reduced: bool = False
    list_file: str | None = None
    neighbour: str | None = None
    order: tuple[int, ...] | None = None
    size: tuple[int, int] | None = None
    bmp: bool = False

    @property
    def num_classes(self) -> int:
        return self.ids[1] - self.ids[0] + (not self.reduced)


VOC = Layout(
    "VOCdevkit/VOC2012", "JPEGImages/*.jpg", "SegmentationClass/*.png", (0, 20), 255,
    ("2007_{:06d}", "2011_{:06d}"), list_file="ImageSets/Segmentation/val.txt",
)  # fmt: skip
CONTEXT = Layout(
    "VOCdevkit/VOC2010", "JPEGImages/*.jpg", "SegmentationClassContext/*.png", (0, 59), None,
    ("2008_{:06d}", "2010_{:06d}"), list_file="ImageSets/SegmentationContext/val.txt",
)  # fmt: skip
LAYOUTS = {
    "voc21": VOC,
    "voc20": VOC._replace(reduced=True),
    "context60": CONTEXT,
    "context59": CONTEXT._replace(reduced=True),
    "coco_object": Layout(
        "coco_object", "images/val2017/*.jpg", "annotations/val2017/*_instanceTrainIds.png", (0, 80), None,
        ("{:012d}",),
    ),
    "coco_stuff164k": Layout(
        "coco_stuff164k", "images/val2017/*.jpg", "annotations/val2017/*_labelTrainIds.png", (0, 170), 255,
        ("{:012d}",), neighbour=".png",
    ),
    "city_scapes": Layout(
        "cityscapes", "leftImg8bit/val/*_leftImg8bit.png", "gtFine/val/*_gtFine_labelTrainIds.png", (0, 18), 255,
        ("frankfurt/frankfurt_000000_{:06d}", "munster/munster_{:06d}_000019", "lindau/lindau_{:06d}_000019"),
        neighbour="_gtFine_labelIds.png",
    ),
    "ade20k": Layout(
        "ade/ADEChallengeData2016", "images/validation/*.jpg", "annotations/validation/*.png", (0, 150), None,
        ("ADE_val_{:08d}",), reduced=True,
    ),
}  # fmt: skip
PATCHES = ("img_dir/val/*.png", "ann_dir/val/*.png")
FURTHER = {
    "pc459": CONTEXT._replace(
        masks="annotations_detectron2/pc459_val/*.tif", ids=(0, 458), unlabelled=459, list_file="pascalcontext_val.txt",
        size=(375, 500),
    ),
    "ade847": Layout(
        "ADE20K_2021_17_01", "images_detectron2/validation/*.jpg", "annotations_detectron2/validation/*.tif", (0, 846),
        65535, ("ADE_val_{:08d}",), size=(256, 341),
    ),
    "loveda": Layout("loveDA", *PATCHES, (0, 7), None, ("{}",), reduced=True, size=(1024, 1024)),
    "potsdam": Layout(
        "potsdam", *PATCHES, (0, 6), None, ("2_13_0_{}_512_512",), reduced=True, order=(1, 2, 3, 4, 5, 0),
        size=(512, 512),
    ),
    "vaihingen": Layout(
        "vaihingen", *PATCHES, (0, 6), None, ("area10_0_{}_512_512",), reduced=True, order=(1, 2, 3, 4, 5, 0),
        size=(512, 512),
    ),
    "isaid": Layout(
        "iSAID", PATCHES[0], "ann_dir/val/*_instance_color_RGB.png", (0, 15), 255, ("P0003_0_896_{}_896",),
        size=(896, 896), bmp=True,
    ),
    "openearthmap": Layout(
        "OpenEarthMap", "img_dir/val/*.tif", "ann_dir/val/*.tif", (0, 8), None, ("aachen_{}", "koeln_{}"),
        size=(1000, 1000),
    ),
    "uavid": Layout(
        "UAVid", "img_dir/test/*.png", "ann_dir/test/*.png", (0, 6), None, ("seq21_000{}00_0_1280_0_1080",),
        size=(1280, 1080), bmp=True,
    ),
    "udd5": Layout(
        "UDD/UDD5", "val/src/*.JPG", "val/gt/*.png", (0, 4), None, ("DJI_{:04d}",), order=(1, 2, 3, 4, 0),
        size=(1500, 2000),
    ),
    "vdd": Layout("VDD", "test/src/*.JPG", "test/gt/*.png", (0, 6), None, ("DJI_{:04d}",), size=(1500, 2000)),
}  # fmt: skip


def random_image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Coloured blocks of 4 pixels, so that JPEG keeps them: (height, width, 3) uint8."""
    blocks = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def random_mask(rng: np.random.Generator, height: int, width: int, layout: Layout) -> np.ndarray:
    """Blocks of 3 pixels with any valid id; the first row has the extremes: (height, width) uint8 or uint16."""
    low, high = layout.ids
    blocks = rng.integers(low, high + 1, (-(-height // 3), -(-width // 3)), np.uint8 if high < 256 else np.uint16)
    if layout.unlabelled:
        blocks[rng.random(blocks.shape) < 0.1] = layout.unlabelled
    mask = blocks.repeat(3, axis=0).repeat(3, axis=1)[:height, :width]
    mask[0, :4] = (low, low + 1, high, layout.unlabelled or high)
    return mask


def meaning(mask: np.ndarray, layout: Layout) -> np.ndarray:
    """The labels of a mask: 0..num_classes-1, and ``unlabelled`` (255 where there is none) of pixels to be ignored."""
    ignored = 255 if layout.unlabelled is None else layout.unlabelled
    if not layout.reduced and layout.order is None:
        return mask
    table = np.full(int(max(ignored, layout.ids[1])) + 1, ignored, mask.dtype)
    table[layout.reduced : layout.ids[1] + 1] = layout.order or range(layout.num_classes)
    return table[mask]


def make_layout(name: str, root: str | Path, images: int = 3) -> dict:
    """Build a benchmark in miniature.

    Args:
        name: a key of :data:`LAYOUTS` or :data:`FURTHER`: the config's name without ``cfg_``.
        root: takes the place of ``data/`` (``CLEARCLIP_DATA``).
        images: how many images belong to the benchmark; list-file benchmarks get one more that is not listed.

    Returns:
        ``data_root`` (Path; ``--data-root``), ``list_file`` (Path or None), ``num_classes``, and lists in the order of
        the evaluation: ``stems``, ``images`` and ``masks`` (Paths), ``raw`` (ids as in the files) and ``labels`` (see
        :func:`meaning`).
    """
    layout = (LAYOUTS | FURTHER)[name]
    rng = np.random.default_rng([*sorted(LAYOUTS), *FURTHER].index(name))
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
        height, width = layout.size or (int(side) for side in rng.integers(24, 45, 2))
        image_path, mask_path = (folder / pattern.replace("*", stem) for pattern in (layout.images, layout.masks))
        for path in (image_path, mask_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(rng, height, width)).save(image_path, "BMP" if layout.bmp else None)
        mask = random_mask(rng, height, width, layout)
        image = Image.fromarray(mask)
        if layout.root == VOC.root or layout.bmp:  # whose masks have a palette
            image.putpalette(rng.integers(0, 256, 768).tolist())
        image.save(mask_path)
        if layout.neighbour:
            other = random_mask(rng, height, width, layout)
            Image.fromarray(other).save(mask_path.with_name(Path(stem).name + layout.neighbour))
        if stem in stems:
            found = dict(images=image_path, masks=mask_path, raw=mask, labels=meaning(mask, layout))
            for key, value in found.items():
                made[key].append(value)
    return made

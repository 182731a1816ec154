"""The eight benchmarks in miniature: the real folders, suffixes, list files and label conventions, drawn at random.

Nothing here uses the package: what it returns is the independent side of a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Layout:
    """A benchmark's files.

    Attributes:
        root: the dataset's own folder under ``data/``.
        images, masks: folders under the root.
        image_suffix, mask_suffix: what follows an image's stem.
        ids: the smallest and the largest valid id in a mask file.
        unlabelled: whether masks have 255.
        reduced: whether id 0 is ignored and all others move down by one.
        list_file: the list of the images, or None where the folder is the list.
        stems: names as the dataset gives them; ``{}`` is the image's number.
    """

    root: str
    images: str
    masks: str
    image_suffix: str
    mask_suffix: str
    ids: tuple[int, int]
    unlabelled: bool
    reduced: bool = False
    list_file: str | None = None
    stems: tuple[str, ...] = ("{:012d}",)
    palette: bool = False

    @property
    def num_classes(self) -> int:
        return self.ids[1] - self.ids[0] + (0 if self.reduced else 1)


VOC = dict(
    root="VOCdevkit/VOC2012",
    images="JPEGImages",
    masks="SegmentationClass",
    image_suffix=".jpg",
    mask_suffix=".png",
    ids=(0, 20),
    unlabelled=True,
    list_file="ImageSets/Segmentation/val.txt",
    stems=("2007_{:06d}", "2011_{:06d}"),
    palette=True,
)
CONTEXT = dict(
    root="VOCdevkit/VOC2010",
    images="JPEGImages",
    masks="SegmentationClassContext",
    image_suffix=".jpg",
    mask_suffix=".png",
    ids=(0, 59),
    unlabelled=False,
    list_file="ImageSets/SegmentationContext/val.txt",
    stems=("2008_{:06d}", "2010_{:06d}"),
)
LAYOUTS = {
    "voc21": Layout(**VOC),
    "voc20": Layout(**VOC, reduced=True),
    "context60": Layout(**CONTEXT),
    "context59": Layout(**CONTEXT, reduced=True),
    "coco_object": Layout(
        "coco_object", "images/val2017", "annotations/val2017", ".jpg", "_instanceTrainIds.png", (0, 80), False
    ),
    "coco_stuff164k": Layout(
        "coco_stuff164k", "images/val2017", "annotations/val2017", ".jpg", "_labelTrainIds.png", (0, 170), True
    ),
    "city_scapes": Layout(
        "cityscapes",
        "leftImg8bit/val",
        "gtFine/val",
        "_leftImg8bit.png",
        "_gtFine_labelTrainIds.png",
        (0, 18),
        True,
        stems=("frankfurt/frankfurt_000000_{:06d}", "munster/munster_{:06d}_000019", "lindau/lindau_{:06d}_000019"),
    ),
    "ade20k": Layout(
        "ade/ADEChallengeData2016",
        "images/validation",
        "annotations/validation",
        ".jpg",
        ".png",
        (0, 150),
        False,
        reduced=True,
        stems=("ADE_val_{:08d}",),
    ),
}
# Files beside the masks in the real dataset that must not be read: its suffix in place of the mask's.
NEIGHBOURS = {"coco_stuff164k": ".png", "city_scapes": "_gtFine_labelIds.png"}


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


def expected_labels(mask: np.ndarray, layout: Layout) -> np.ndarray:
    """The ground truth that a mask file means: 0..classes-1, 255 where it is ignored; (height, width) uint8."""
    if not layout.reduced:
        return mask.copy()
    labels = np.full_like(mask, 255)
    valid = (mask != 0) & (mask != 255)
    labels[valid] = mask[valid] - 1
    return labels


def save_mask(mask: np.ndarray, path: Path, palette: bool = False) -> None:
    """Write ids as PNG: grey, or with colours as PASCAL VOC does."""
    image = Image.fromarray(mask)
    if palette:
        colours = np.random.default_rng(0).integers(0, 256, 768).tolist()
        image.putpalette(colours)
    image.save(path)


def make_layout(name: str, root: str | Path, images: int = 3, seed: int = 0) -> dict:
    """Build a benchmark in miniature.

    Args:
        name: a key of :data:`LAYOUTS`: the config's name without ``cfg_``.
        root: takes the place of ``data/`` (``CLEARCLIP_DATA``).
        images: how many images belong to the benchmark; list-file benchmarks get one more that is not listed.
        seed: of the random images and masks; another seed gives other ones of other sizes.

    Returns:
        ``data_root`` (Path; ``--data-root``), ``list_file`` (Path or None), ``num_classes``, ``ignore_index``,
        and lists in the order of the evaluation: ``stems``, ``images`` and ``masks`` (Paths), ``raw`` (uint8 ids as
        in the files) and ``labels`` (uint8; 0..num_classes-1, 255 where ignored).
    """
    layout = LAYOUTS[name]
    rng = np.random.default_rng([seed, sorted(LAYOUTS).index(name)])
    data_root = Path(root) / layout.root
    stems = sorted(layout.stems[n % len(layout.stems)].format(7 * n + 1) for n in range(images))
    if layout.list_file is not None:
        # Evaluation goes by the list, not by the alphabet.
        rng.shuffle(stems)
    unlisted = [layout.stems[0].format(999)] if layout.list_file is not None else []
    made = dict(
        data_root=data_root,
        list_file=data_root / layout.list_file if layout.list_file else None,
        num_classes=layout.num_classes,
        ignore_index=255,
        stems=stems,
        images=[],
        masks=[],
        raw=[],
        labels=[],
    )
    for stem in [*stems, *unlisted]:
        height, width = (int(side) for side in rng.integers(24, 45, 2))
        image_path = data_root / layout.images / (stem + layout.image_suffix)
        mask_path = data_root / layout.masks / (stem + layout.mask_suffix)
        image_path.parent.mkdir(parents=True, exist_ok=True)
        mask_path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(rng, height, width)).save(image_path)
        mask = random_mask(rng, height, width, layout)
        save_mask(mask, mask_path, layout.palette)
        if name in NEIGHBOURS:
            other = random_mask(rng, height, width, layout)
            save_mask(other, mask_path.with_name(Path(stem).name + NEIGHBOURS[name]))
        if stem in unlisted:
            continue
        made["images"].append(image_path)
        made["masks"].append(mask_path)
        made["raw"].append(mask)
        made["labels"].append(expected_labels(mask, layout))
    if layout.list_file is not None:
        made["list_file"].parent.mkdir(parents=True, exist_ok=True)
        made["list_file"].write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
    return made

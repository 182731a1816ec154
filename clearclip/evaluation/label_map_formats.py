"""Label maps as files: the ids, names and palettes that a dataset's masks have, and that its test server takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmseg.datasets import ADE20KDataset, BaseSegDataset, CityscapesDataset, PascalVOCDataset
from PIL import Image

from clearclip.evaluation.mask_loading import label_table
from clearclip.utils.errors import UserError

#: Cityscapes' labelIds. Its masks hold labelTrainIds, its server takes these.
CITYSCAPES_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
#: What Cityscapes' images are called beside city, sequence and frame.
CITYSCAPES_IMAGE = "_leftImg8bit"


@dataclass(frozen=True)
class LabelMapFormat:
    """How labels are written.

    Attributes:
        name: whose format it is, in words.
        values: (classes,) the id of each label, or (classes, 3) its colour.
        palette: (256, 3) uint8 colours of the ids in the file, or None for a grey one.
        suffix: what follows the image's name.
        image_suffix: what the image's name ends with, which is dropped.
    """

    name: str
    values: np.ndarray
    palette: np.ndarray | None = None
    suffix: str = ""
    image_suffix: str = ""

    def file_name(self, stem: str) -> str:
        """The name of the file for an image of this name without its suffix."""
        return f"{stem.removesuffix(self.image_suffix)}{self.suffix}.png"

    def image(self, labels: np.ndarray) -> Image.Image:
        """Labels, (H, W) integers, as a picture of ids, 8 bits where they are enough."""
        values = self.values[labels]
        # Servers take 8 bits; only datasets with more than 256 ids of their own need 16.
        dtype = np.uint8 if self.values.max() < 256 else np.uint16
        picture = Image.fromarray(values.astype(dtype))
        if self.palette is not None:
            picture.putpalette(self.palette.tobytes())
        return picture


def label_map_format(dataset: BaseSegDataset) -> LabelMapFormat:
    """The format for a dataset: that of its test server, or else the ids or colours of its own masks.

    Raises:
        UserError: classes that the server does not know, or that no id of a mask becomes.
    """
    classes = list(dataset.metainfo["classes"])
    if isinstance(dataset, CityscapesDataset):
        unknown_classes = [name for name in classes if name not in CITYSCAPES_IDS]
        if unknown_classes:
            raise UserError(f"Cityscapes has no class {unknown_classes[0]!r}; give its own as metainfo.classes")
        ids = np.array([CITYSCAPES_IDS[name] for name in classes])
        return LabelMapFormat("Cityscapes' labelIds", ids, None, "_labelIds", CITYSCAPES_IMAGE)
    values = _mask_values(dataset, classes)
    if isinstance(dataset, PascalVOCDataset):
        return LabelMapFormat("PASCAL VOC's ids with its palette", values, voc_palette())
    if isinstance(dataset, ADE20KDataset):
        return LabelMapFormat("ADE20K's ids", values)
    return LabelMapFormat(f"ids of {type(dataset).__name__}'s masks", values)


def _mask_values(dataset: BaseSegDataset, classes: list[str]) -> np.ndarray:
    """The smallest id of each label in the dataset's masks, (classes,), or its first colour, (classes, 3)."""
    label_map = None if dataset.label_map is None else tuple(dataset.label_map.items())
    reduces = bool(dataset.reduce_zero_label)
    label_of_id, is_allowed = label_table(len(classes), dataset.ignore_index, reduces, label_map)
    ids = []
    for label, name in enumerate(classes):
        # Several ids may have become one class: any of them stands for it, and the smallest is always the same.
        candidates = np.flatnonzero((label_of_id == label) & is_allowed)
        if not len(candidates):
            raise UserError(f"no id of the dataset's masks becomes {name!r}; correct metainfo.classes")
        ids.append(int(candidates[0]))
    if getattr(dataset, "coloured", False):
        return dataset.values[ids]
    return np.array(ids)


def voc_palette() -> np.ndarray:
    """PASCAL VOC's colours of the ids 0 to 255, (256, 3) uint8: each id's bits, the lowest three first, are the highest
    bits of red, green and blue, the next three the next ones.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for position in range(8):
        for channel in range(3):
            bit = (ids >> (3 * position + channel)) & 1
            palette[:, channel] |= (bit << (7 - position)).astype(np.uint8)
    return palette


def file_names(image_paths: list[str], label_maps: LabelMapFormat) -> list[str]:
    """A file's name for each image: its own where that is unique, else with its folders."""
    stems = [Path(path).stem for path in image_paths]
    # Servers expect the bare name; with folders no file would take the place of another.
    if len(set(stems)) < len(stems):
        stems = [Path(path).with_suffix("").as_posix().replace("/", "-") for path in image_paths]
    return [label_maps.file_name(stem) for stem in stems]

"""CVAT's "Segmentation mask 1.1": a zip archive of PNG masks in the layout of PASCAL VOC."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from clearclip.utils.errors import UserError
from clearclip.utils.files import write_bytes

#: The name that the format has for pixels of no label; its colour is black.
NO_LABEL = "background"


def write_cvat_masks(
    path: str | Path, label_maps: Iterable[tuple[str, np.ndarray]], names: Sequence[str], colours: np.ndarray
) -> Path:
    """Write label maps as an archive that CVAT takes under "Upload annotations", format "Segmentation mask 1.1".

    A class called "background" becomes CVAT's own black background; the task's labels must have the other names.

    Args:
        path: of the archive, .zip; written whole or not at all.
        label_maps: for each image its file name, as CVAT has it, and its labels, (H, W) integers.
        names: of the classes, in label order.
        colours: (K, 3) RGB, one for each class.

    Raises:
        UserError: two classes of one colour, a black one, a name that the format cannot hold, or two images of one
            name.
    """
    table = _colour_table(names, colours)
    # In memory: an archive that is interrupted would be there in part, and masks compress to little.
    buffer = io.BytesIO()
    stems: list[str] = []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labelmap.txt", _label_map_text(names, table))
        for file_name, labels in label_maps:
            # With its folders, which are part of an image's name in CVAT.
            stem = str(PurePosixPath(Path(file_name).as_posix()).with_suffix("")).lstrip("/")
            if stem in stems:
                raise UserError(f"{path}: two images are called {stem!r} without their suffix; rename one of them")
            stems.append(stem)
            archive.writestr(f"SegmentationClass/{stem}.png", _png_bytes(table[labels]))
            archive.writestr(f"SegmentationObject/{stem}.png", _png_bytes(_object_mask(table[labels], labels)))
        # CVAT takes the images' names from this list alone.
        archive.writestr("ImageSets/Segmentation/default.txt", "".join(f"{stem}\n" for stem in stems))
    return write_bytes(path, buffer.getvalue())


def _colour_table(names: Sequence[str], colours: np.ndarray) -> np.ndarray:
    """The colour of each class, (K, 3) uint8, by which alone the format tells classes apart."""
    # A copy, since the result's own colours stay what they are.
    table = np.asarray(colours).astype(np.uint8)[: len(names)].copy()
    for label, name in enumerate(names):
        if name.lower() == NO_LABEL:
            table[label] = 0
        elif not table[label].any():
            raise UserError(f"{name!r} is black, which is CVAT's {NO_LABEL}; give it another colour (result.colours)")
        if any(letter in name for letter in ":#\n\r"):
            raise UserError(f"CVAT's label map cannot hold the name {name!r}; rename the class without : and #")
    unique_colours, counts = np.unique(table, axis=0, return_counts=True)
    if counts.max() > 1:
        repeated = unique_colours[counts.argmax()]
        sharing = [name for name, colour in zip(names, table, strict=True) if (colour == repeated).all()]
        raise UserError(f"{' and '.join(sharing)} have one colour; give each its own (result.colours)")
    return table


def _label_map_text(names: Sequence[str], table: np.ndarray) -> str:
    """The archive's list of names and colours."""
    lines = ["# label:color_rgb:parts:actions", f"{NO_LABEL}:0,0,0::"]
    for name, (red, green, blue) in zip(names, table.tolist(), strict=True):
        if name.lower() != NO_LABEL:
            lines.append(f"{name}:{red},{green},{blue}::")
    return "\n".join(lines) + "\n"


def _object_mask(class_mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mask of objects, (H, W, 3) uint8: a class is one object, in the colour of its number, from 1."""
    objects = np.zeros_like(class_mask)
    is_labelled = class_mask.any(axis=-1)
    for number, label in enumerate(np.unique(labels[is_labelled]), start=1):
        objects[labels == label] = _voc_colour(number)
    return objects


def _voc_colour(number: int) -> list[int]:
    """PASCAL VOC's colour for a number: its lowest bits, three at a time, are the highest of red, green and blue."""
    colour = [0, 0, 0]
    bit = 0b1000_0000
    while number:
        for channel in range(3):
            if number & (1 << channel):
                colour[channel] |= bit
        number >>= 3
        bit >>= 1
    return colour


def _png_bytes(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()

"""The files that the demo and its page write for an image, and the tables and archives of a whole folder."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clearclip.commands.image_search import RESULT_FACTS, ImageFile, read_facts
from clearclip.formats import coco_dataset, write_cvat_masks
from clearclip.model_settings import ModelSettings
from clearclip.segmentation import Segmentation
from clearclip.utils.files import write_bytes

#: Columns of the table of shares before those of the classes.
SHARE_COLUMNS = ("image", "width", "height")
#: What the pictures of a result may show, by the end of their names.
PICTURE_TYPES = ("segmentation", "compare", "heatmaps")
#: Bytes of a file's name that a result's name takes from its image; file systems take 255 in all.
MAX_STEM_BYTES = 200


@dataclass
class ResultNames:
    """Names for results, such that none replaces an image that is read or the result of another image.

    Attributes:
        folder: where results go.
        picture_format: suffix of pictures, without a dot.
        occupied: files that must not be written, or have been promised to another image.
    """

    folder: Path
    picture_format: str = "png"
    occupied: set[Path] = field(default_factory=set)

    def stem_for(self, image: ImageFile) -> Path:
        """What the paths of an image's files begin with. Subfolders are those of the images."""
        name = image.path.stem
        while len(os.fsencode(name)) > MAX_STEM_BYTES:
            name = name[:-1]
        folder = self.folder / image.subfolder
        stem = folder / name
        number = 1
        # Two folders may each have a photo of this name.
        while self.occupied & self._files(stem):
            number += 1
            stem = folder / f"{name}_{number}"
        self.occupied |= self._files(stem)
        return stem

    def picture(self, stem: Path, picture_type: str) -> Path:
        """The path of a picture of such a type, one of :data:`PICTURE_TYPES`."""
        return Path(f"{stem}_{picture_type}.{self.picture_format}")

    def _files(self, stem: Path) -> set[Path]:
        """All files that may be written for a stem, resolved."""
        files = [self.picture(stem, picture_type) for picture_type in PICTURE_TYPES]
        # The label map of a map, a GeoTIFF, stands in the same folder as the results of pictures.
        files += [label_map_path(stem), facts_path(stem), label_map_path(stem).with_suffix(".tif")]
        return {file.resolve() for file in files}


def label_map_path(stem: Path) -> Path:
    """The label map of a result."""
    return Path(f"{stem}_labels.png")


def facts_path(stem: Path) -> Path:
    """The JSON that says what a label map's ids mean, and how it was computed."""
    return Path(f"{stem}{RESULT_FACTS}")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, so that a result knows whether its image has changed; empty where it is no file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def settings_facts(settings: ModelSettings, method: Any) -> dict[str, str]:
    """What of a model's settings changes a result, as texts."""
    # As texts, since they are compared with what JSON has kept of an earlier run.
    facts = {name: str(value) for name, value in settings.facts().items()}
    facts["method"] = str(method)
    facts["size"] = f"short side {settings.short_side}, long side at most {settings.long_side}"
    facts["weights"] = str(settings.pretrained or "")
    return facts


def result_facts(
    result: Segmentation, image: str, settings: ModelSettings, digest: str, seen_size: tuple[int, int], method: Any
) -> dict[str, Any]:
    """What the ids of a label map mean, and how it was computed.

    Args:
        result: of the image.
        image: its name.
        settings, method: of the model.
        digest: of the image file.
        seen_size: height and width at which the model saw the image.
    """
    height, width = result.labels.shape
    return {
        "image": image,
        "image_sha256": digest,
        "model": result.model,
        "method": result.method,
        "prob_thd": settings.prob_thd,
        "settings": settings_facts(settings, method),
        "seen": {"width": seen_size[1], "height": seen_size[0]},
        "width": width,
        "height": height,
        "classes": [_class_facts(result, label) for label in range(len(result.words))],
    }


def _class_facts(result: Segmentation, label: int) -> dict[str, Any]:
    """What an id of a label map means, and how much of the image has it."""
    words = result.words[label]
    pixels = int(result.class_pixels[label])
    return {
        "id": label,
        "name": words[0],
        "words": list(words),
        "colour": f"#{bytes(result.colours[label]).hex()}",
        "pixels": pixels,
        "share": pixels / result.labels.size,
    }


def write_facts(stem: Path, facts: Mapping[str, Any]) -> Path:
    """Write the facts of a label map as JSON. They come last: where they are, the other files are whole."""
    facts_of_file = {"labels": label_map_path(stem).name, **facts}
    text = json.dumps(facts_of_file, indent=2, ensure_ascii=False) + "\n"
    # The bytes of a name that is not UTF-8 stay readable as JSON's own escapes.
    return write_bytes(facts_path(stem), text.encode(errors="backslashreplace"))


def existing_facts(stem: Path, expected: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any] | None:
    """The facts that an earlier run wrote, if it computed the very same and all ``files`` are there.

    Args:
        stem: of the result.
        expected: facts that must agree: image, model, settings and the words of the classes.
        files: pictures that this run would write.
    """
    facts = read_facts(facts_path(stem))
    if facts is None or not all(file.is_file() for file in (*files, label_map_path(stem))):
        return None
    # As JSON has them: tuples are lists there.
    expected = json.loads(json.dumps(expected))
    comparable = {**facts, "words": [entry.get("words") for entry in facts["classes"]]}
    for name, value in expected.items():
        if comparable.get(name) != value:
            return None
    return facts


def largest_shares(shares: Mapping[str, float], count: int = 5) -> str:
    """The classes that cover most of an image, as "sky 38.0%, boat 15.8%"; those that do not occur are left out."""
    largest_first = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.1%}" for name, share in largest_first[:count] if share)


def write_shares(path: Path, all_facts: Sequence[Mapping[str, Any]]) -> Path:
    """Write a CSV with a line for each image: its name, its size and the share of each class, 0 to 1."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    names = [_share_column(entry["name"]) for entry in all_facts[0]["classes"]]
    writer.writerow([*SHARE_COLUMNS, *names])
    for facts in all_facts:
        shares = [f"{entry['share']:.6f}" for entry in facts["classes"]]
        writer.writerow([facts["image"], facts["width"], facts["height"], *shares])
    # Names of files may have bytes that are no UTF-8.
    return write_bytes(path, buffer.getvalue().encode(errors="backslashreplace"))


def _share_column(name: str) -> str:
    """A class's column; one that is called like another column says that it is a class."""
    return f"{name} (class)" if name in SHARE_COLUMNS else name


def write_folder_formats(
    folder: Path,
    names: Sequence[tuple[str, Path]],
    classes: Sequence[str],
    colours: np.ndarray,
    *,
    coco: bool,
    cvat: bool,
) -> Iterator[Path]:
    """Write the label maps of a folder as one COCO file, as one archive for CVAT, or both.

    Args:
        folder: where the files go.
        names: for each image its name and the stem of its result.
        classes: the classes' names, in label order.
        colours: of the classes.
        coco, cvat: what to write.
    """
    if coco:
        dataset = coco_dataset(_label_maps(names), classes)
        text = json.dumps(dataset, ensure_ascii=False)
        yield write_bytes(folder / "coco.json", text.encode(errors="backslashreplace"))
    if cvat:
        yield write_cvat_masks(folder / "cvat.zip", _label_maps(names), classes, colours)


def _label_maps(names: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, np.ndarray]]:
    """The label maps that were written, one at a time, so that any number of images fits into memory."""
    for name, stem in names:
        with Image.open(label_map_path(stem), formats=["PNG"]) as image:
            yield name, np.asarray(image)

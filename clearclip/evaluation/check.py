"""Is a dataset complete? Folders, list file, every image and mask by name, and what some of the files hold."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import ExifTags
from tqdm.contrib.concurrent import thread_map

from clearclip.evaluation.config import class_words, dataset_name
from clearclip.evaluation.datasets import DATASETS
from clearclip.evaluation.labels import valid_ids
from clearclip.utils.errors import UserError
from clearclip.utils.images import open_image

PREPARE = "prepare it as datasets/README.md says"


@dataclass
class Report:
    """What a check found.

    Attributes:
        name: of the dataset.
        root: its folder.
        expected: number of images of the published benchmark, or None.
        listed: images that belong to it: by its list file, else those in the folder.
        pairs: of these, how many exist and have a mask.
        opened: pairs that were opened.
        valid: of these, pairs of one size whose mask has known ids only.
        problems: what prevents an evaluation, each with its remedy.
        remarks: what makes the result differ from the published one, or is unusual.
    """

    name: str
    root: Path
    expected: int | None
    listed: int = 0
    pairs: int = 0
    opened: int = 0
    valid: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Nothing is missing and nothing is wrong."""
        return not self.problems and self.expected in (None, self.listed)


def quick_check(cfg: Config) -> list[str]:
    """What is checked before a model is loaded: that all files exist, and what a few of them hold.

    Returns:
        Remarks, such as that the number of images is not the published benchmark's.

    Raises:
        UserError: the dataset cannot be evaluated.
    """
    report = check_dataset(cfg, sample=4)
    if report.problems:
        raise UserError(report.problems[0])
    return report.remarks


def check_dataset(cfg: Config, sample: int | None = 32, threads: int = 1) -> Report:
    """Check a config's dataset, and that its class words fit it.

    Args:
        cfg: a config; its ``expected_images`` is compared where it is given.
        sample: open this many pairs, evenly spaced: masks whole, of images the size only. None decodes all files.
        threads: how many files are opened at a time.

    Raises:
        UserError: the config itself is wrong. What MMSegmentation raises on wrong settings of a dataset is passed on.
    """
    settings = cfg.test_dataloader.dataset
    report = Report(dataset_name(cfg), Path(settings.data_root), cfg.get("expected_images"))
    # MMSegmentation's dataset classes skip what is missing, or stop with an assertion that does not name it.
    report.problems += _missing_places(report.root, settings)
    if report.problems:
        return report
    dataset = DATASETS.build({**settings, "pipeline": [], "serialize_data": False, "test_mode": True})
    classes, ignored, words = dataset.metainfo["classes"], dataset.ignore_index, len(class_words(cfg))
    if words != len(classes):
        fault = f"the names file or class_names of {report.name} has {words} classes, the dataset {len(classes)}"
        report.problems.append(f"{fault}; give one line for each class, in label order")
    if 0 <= ignored < len(classes):
        report.remarks.append(f"class {ignored} ({classes[ignored]}) is not counted: it is the dataset's ignore_index")
    pairs, valid = _find_pairs(report, dataset), valid_ids(dataset)
    if sample is not None:
        pairs = [pairs[place] for place in np.linspace(0, len(pairs) - 1, min(sample, len(pairs))).round().astype(int)]
    shown = dict(desc=report.name, unit="file", disable=None, leave=False)
    found = thread_map(lambda pair: _fault(*pair, valid, sample is None), pairs, max_workers=threads, **shown)
    faults = [fault for fault in found if fault]
    report.opened, report.valid = len(pairs), len(pairs) - len(faults)
    if faults:
        report.problems.append(f"{len(faults):,} of the {len(pairs):,} pairs opened are wrong: {faults[0]}")
    return report


def _missing_places(root: Path, settings: Any) -> list[str]:
    """The dataset's folders and its list file, as far as they do not exist."""
    if not root.is_dir():
        where = "" if root.is_absolute() else f" in {Path.cwd()}"
        return [f"root {root} does not exist{where}; {PREPARE}, or give --data-root or CLEARCLIP_DATA"]
    prefix = settings.get("data_prefix", {"seg_map_path": ""})
    if "seg_map_path" not in prefix:
        raise UserError(f"data_prefix {dict(prefix)} has no folder of masks; give it seg_map_path")
    places = [root / (name or "") for name in (settings.get("ann_file"), *prefix.values())]
    return [f"{place} does not exist; {PREPARE}" for place in places if not place.exists()]


def _find_pairs(report: Report, dataset: Any) -> list[tuple[Path, Path]]:
    """Look for every image and mask by name. Returns the pairs of which both exist."""
    source = dataset.ann_file or dataset.data_prefix["img_path"]
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    if not infos:
        report.problems.append(f"{source} has no image (*{dataset.img_suffix}); {PREPARE}")
    elif report.expected not in (None, len(infos)):
        published = f"the published benchmark has {report.expected:,}"
        report.remarks.append(f"{source} has {len(infos):,} images, {published}; {PREPARE}")
    pairs = [(Path(info["img_path"]), Path(info["seg_map_path"])) for info in infos]
    if len(set(pairs)) < len(pairs):
        report.problems.append(f"{source} names an image more than once; remove repeated lines")
    # Listing a folder is far quicker than asking for each of its files, above all over a network.
    folders = [folder for folder in {path.parent for pair in pairs for path in pair} if folder.is_dir()]
    files = {Path(entry) for folder in folders for entry in os.scandir(folder) if entry.is_file()}
    for index, what in enumerate(("image", "mask")):
        lost = [pair[index] for pair in pairs if pair[index] not in files]
        if lost:
            report.problems.append(f"{what} {lost[0]} is missing ({len(lost):,} of {len(pairs):,} are); {PREPARE}")
    there = [pair for pair in pairs if files.issuperset(pair)]
    report.listed, report.pairs = len(pairs), len(there)
    return there


def _fault(image_path: Path, mask_path: Path, valid: np.ndarray, decode: bool) -> str | None:
    """What is wrong with an image and its mask, and the remedy; None where they belong together."""
    try:
        with open_image(image_path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) > 4  # OpenCV turns such an image by 90 degrees
            size = image.size if turned else image.size[::-1]
            if decode:
                image.load()
        with open_image(mask_path) as mask:
            ids = np.asarray(mask)
    except UserError as error:
        return f"{error}; unpack or convert it again"
    if ids.shape != size:
        return f"mask {mask_path} has shape {ids.shape}, its image {size}; {PREPARE}"
    wrong = np.setdiff1d(ids, valid)
    if len(wrong):
        fault = f"mask {mask_path} has id(s) {wrong[:5].tolist()}, which are neither a class nor ignored"
        return f"{fault}; {PREPARE}, or correct the dataset's classes, ignore_index and reduce_zero_label"
    return None

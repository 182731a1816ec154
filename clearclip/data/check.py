"""Is a dataset complete? Folders, list file, every image and mask, and what the files hold.

Folders and list file are checked before the dataset is built: MMSegmentation's dataset classes skip what is missing or
stop with an assertion that does not name it.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.contrib.concurrent import thread_map

from clearclip.data.labels import valid_ids
from clearclip.errors import UserError
from clearclip.text.words import ClassWords

PREPARE = "prepare it as datasets/README.md says"
#: What makes a dataset's masks; all others come with the dataset.
_MAKERS = {
    "COCOObjectDataset": "datasets/cvt_coco_object.py",
    "COCOStuffDataset": "MMSegmentation's coco_stuff164k.py",
    "CityscapesDataset": "MMSegmentation's cityscapes.py",
    "PascalContext60Dataset": "MMSegmentation's pascal_context.py",
    "PascalContext59Dataset": "MMSegmentation's pascal_context.py",
}
#: EXIF orientations that turn an image by 90°; OpenCV applies them when it reads the image.
_TURNED = {5, 6, 7, 8}
#: What Pillow raises on files that are damaged, or no images at all.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass
class Report:
    """What a check found.

    Attributes:
        name: the config's ``dataset_name``, else the dataset's class.
        root: the dataset's root.
        list_file: names of the images, or None where the folder is the list.
        expected: number of images of the published benchmark, or None.
        listed: images that belong to it: by its list file, else those in the folder.
        images, masks: of these, how many exist.
        opened: pairs of image and mask that were opened.
        sizes: of these, pairs of the same size.
        ids: of these, masks whose ids are all valid.
        problems: what prevents an evaluation, each with its remedy.
        remarks: what makes its result differ from the published one, or is unusual.
    """

    name: str
    root: Path
    list_file: Path | None
    expected: int | None
    listed: int = 0
    images: int = 0
    masks: int = 0
    opened: int = 0
    sizes: int = 0
    ids: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Nothing is missing and nothing is wrong."""
        return not self.problems and self.expected in (None, self.listed)


def quick_check(cfg: Any) -> list[str]:
    """What is checked before a model is loaded: that all files exist, and what a few of them hold.

    Returns:
        Remarks, such as that the number of images is not the published benchmark's.

    Raises:
        UserError: the dataset cannot be evaluated.
    """
    report = check_dataset(cfg, sample=4, decode_images=False)
    if report.problems:
        raise UserError(report.problems[0])
    return report.remarks


def check_dataset(
    cfg: Any, full: bool = False, sample: int = 32, threads: int = 1, decode_images: bool = True
) -> Report:
    """Check a config's dataset.

    Args:
        cfg: a config with ``test_dataloader.dataset``; ``model.name_path`` or ``model.class_names`` and
            ``expected_images`` are compared where they are given.
        full: open every image and mask.
        sample: else open this many pairs, evenly spaced.
        threads: how many files are opened at a time.
        decode_images: decode the images that are opened; else read their headers only.

    Raises:
        UserError: the config itself is wrong.
    """
    settings = cfg["test_dataloader"]["dataset"]
    kind = settings.get("type")
    kind = kind.__name__ if inspect.isclass(kind) else str(kind)
    remedy = f"make the masks with {_MAKERS[kind]} (see datasets/README.md)" if kind in _MAKERS else PREPARE
    root = Path(settings.get("data_root") or "")
    list_file = Path(root, settings["ann_file"]) if settings.get("ann_file") else None
    report = Report(cfg.get("dataset_name") or kind, root, list_file, cfg.get("expected_images"))
    _check_folders(report, settings)
    if not report.problems:
        dataset = _build(settings)
        _check_classes(report, cfg, dataset)
        pairs = _check_files(report, dataset, remedy)
        if not full:
            spread = np.linspace(0, len(pairs) - 1, min(sample, len(pairs))).round().astype(int)
            pairs = [pairs[position] for position in spread]
        _check_contents(report, pairs, valid_ids(dataset), decode_images, threads, remedy)
    return report


def _check_folders(report: Report, settings: Any) -> None:
    root, prefix = report.root, settings.get("data_prefix", {"seg_map_path": ""})
    if "seg_map_path" not in prefix:
        raise UserError(f"data_prefix {dict(prefix)} of {report.name} has no folder of masks; give it seg_map_path")
    if not root.is_dir():
        where = "" if root.is_absolute() else f" in {Path.cwd()}"
        fault = f"root {root} of {report.name} does not exist{where}"
        report.problems.append(f"{fault}; {PREPARE}, or give --data-root or CLEARCLIP_DATA")
        return
    if report.list_file is not None and not report.list_file.exists():
        report.problems.append(f"list file {report.list_file} does not exist; {PREPARE}")
    for folder in (Path(root, name or "") for name in prefix.values()):
        if not folder.is_dir():
            report.problems.append(f"folder {folder} does not exist; {PREPARE}")


def _build(settings: Any) -> Any:
    """The dataset itself, its files not listed yet."""
    # Imported late: nothing else here needs MMSegmentation.
    from mmseg.datasets import BaseSegDataset
    from mmseg.registry import DATASETS

    name = settings.get("type")
    kind = name if inspect.isclass(name) else DATASETS.get(str(name))
    if kind is None or not issubclass(kind, BaseSegDataset):
        raise UserError(
            f"dataset type {name!r} is no BaseSegDataset that is known; correct test_dataloader.dataset.type"
        )
    options = {**settings, "pipeline": [], "lazy_init": True, "serialize_data": False, "test_mode": True}
    options.pop("type")
    try:
        return kind(**options)
    except Exception as error:  # whatever a dataset's class makes of wrong settings
        raise UserError(f"{kind.__name__} cannot be built: {error}; correct test_dataloader.dataset") from error


def _check_classes(report: Report, cfg: Any, dataset: Any) -> None:
    classes, ignore = dataset.metainfo["classes"], dataset.ignore_index
    if 0 <= ignore < len(classes):
        report.remarks.append(f"class {ignore} ({classes[ignore]}) is not counted: it is the dataset's ignore_index")
    model = cfg.get("model") or {}
    if model.get("class_names") is not None:
        words, source = ClassWords.parse(model["class_names"], "class_names"), "class_names"
    elif model.get("name_path") is not None:
        words, source = ClassWords.read(model["name_path"]), f"names file {model['name_path']}"
    else:
        return
    if len(words) != len(classes):
        fault = f"{source} has {len(words)} classes, {report.name} has {len(classes)}"
        report.problems.append(f"{fault}; give one line for each class, in label order")


def _check_files(report: Report, dataset: Any, mask_remedy: str) -> list[tuple[Path, Path]]:
    """Look for every image and mask by name. Returns the pairs of which both exist."""
    source = f"list file {report.list_file}" if report.list_file else f"folder {dataset.data_prefix['img_path']}"
    suffix = dataset.img_suffix
    try:
        dataset.full_init()
    except Exception as error:  # whatever a dataset's class makes of a damaged list
        report.problems.append(f"{source} cannot be read ({error}); {PREPARE}")
        return []
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    images = [Path(info["img_path"]) for info in infos]
    masks = [Path(info.get("seg_map_path") or "") for info in infos]
    report.listed = len(images)
    if report.list_file is None and report.expected != len(images):
        # MMSegmentation leaves such links out.
        dangling = [path for path in Path(dataset.data_prefix["img_path"]).rglob(f"*{suffix}") if not path.exists()]
        if dangling:
            report.problems.append(f"image {min(dangling)} is a link to a file that does not exist; {PREPARE}")
    blank = [number for number, image in enumerate(images, 1) if image.name == suffix]
    if len(blank) == len(images):
        fault = "is empty" if report.list_file else f"has no image (*{suffix})"
        report.problems.append(f"{source} {fault}; {PREPARE}")
        return []
    if blank:
        report.problems.append(f"line {blank[0]} of {source} is blank; remove it")
    (twice, times), *_ = Counter(images).most_common(1)
    if times > 1:
        report.problems.append(f"{source} has {twice.name.removesuffix(suffix)} more than once; remove repeated lines")
    if report.expected not in (None, len(images)):
        published = f"the published benchmark has {report.expected:,}"
        report.remarks.append(f"{source} has {len(images):,} images, {published}; {PREPARE}")
    # Listing a folder is far quicker than asking for each of its files, above all over a network.
    folders = [folder for folder in {path.parent for path in (*images, *masks)} if folder.is_dir()]
    files = {Path(entry) for folder in folders for entry in os.scandir(folder) if entry.is_file()}
    for what, paths, remedy in (("image", images, PREPARE), ("mask", masks, mask_remedy)):
        lost = [path for path in paths if path not in files]
        if lost:
            more = f" ({len(lost):,} of {len(paths):,} are missing)" if len(lost) > 1 else ""
            report.problems.append(f"{what} {lost[0]} is missing{more}; {remedy}")
    report.images, report.masks = len(files.intersection(images)), len(files.intersection(masks))
    return [(image, mask) for image, mask in zip(images, masks, strict=True) if files >= {image, mask}]


def _check_contents(
    report: Report,
    pairs: list[tuple[Path, Path]],
    valid: np.ndarray,
    decode_images: bool,
    threads: int,
    mask_remedy: str,
) -> None:
    again = "unpack or convert it again"
    remedies = {"image": again, "mask": again, "size": again, "channels": mask_remedy, "ids": mask_remedy}

    def open_pair(pair: tuple[Path, Path]) -> dict[str, str]:
        return _find_faults(*pair, valid, decode_images)

    found = thread_map(open_pair, pairs, max_workers=threads, desc=report.name, unit="file", disable=None, leave=False)
    report.opened = len(pairs)
    report.sizes = sum(not faults.keys() & {"image", "mask", "size"} for faults in found)
    report.ids = sum(not faults.keys() & {"mask", "channels", "ids"} for faults in found)
    for kind, remedy in remedies.items():
        faults = [of_pair[kind] for of_pair in found if kind in of_pair]
        if faults:
            more = f" (and {len(faults) - 1:,} more of the {len(pairs):,} opened)" if len(faults) > 1 else ""
            report.problems.append(f"{faults[0]}{more}; {remedy}")


def _find_faults(image_path: Path, mask_path: Path, valid: np.ndarray, decode_image: bool) -> dict[str, str]:
    """Open an image and its mask. Returns faults by kind: image, mask, size, channels, ids."""
    faults = {}
    size = ids = None
    try:
        with Image.open(image_path) as image:
            size = image.size[::-1] if image.getexif().get(0x0112) not in _TURNED else image.size
            if decode_image:
                image.load()
    except _UNREADABLE as error:
        faults["image"] = f"image {image_path} cannot be read ({error})"
    try:
        with Image.open(mask_path) as image:
            ids = np.asarray(image)
    except _UNREADABLE as error:
        faults["mask"] = f"mask {mask_path} cannot be read ({error})"
    if ids is None:
        return faults
    height, width = ids.shape[:2]
    if size is not None and size != (height, width):
        faults["size"] = f"mask {mask_path} is {width}x{height}, its image {size[1]}x{size[0]}"
    if ids.ndim != 2:
        faults["channels"] = f"mask {mask_path} has {ids.shape[2]} channels, a mask has one with the ids"
        return faults
    wrong = np.setdiff1d(ids, valid)
    if len(wrong):
        some = ", ".join(map(str, wrong[:5].tolist())) + (", …" if len(wrong) > 5 else "")
        last = int(np.flatnonzero(valid == np.arange(len(valid)))[-1])
        more = "".join(f" and {value}" for value in valid[last + 1 :])
        faults["ids"] = f"mask {mask_path} has id(s) {some}, valid are 0..{last}{more}"
    return faults

"""Is a dataset complete? Folders, list file, every image and mask by name, and what some of the files hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine import fileio
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from clearclip.evaluation.annotation_tools import likely_tool
from clearclip.evaluation.checked_dataset import CheckedDataset, reading
from clearclip.evaluation.config import class_words, dataset_name
from clearclip.evaluation.datasets import entries, plain_datasets, plain_settings, source_of
from clearclip.evaluation.mask_loading import PREPARE, VOID
from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path


@dataclass
class Report:
    """What a check found.

    Attributes:
        name, root: of the dataset.
        expected: number of images of the published benchmark, or None.
        listed: images that belong to it: by its list file, else those in the folder.
        pairs, opened, valid: of these, how many exist with a mask; how many of them were opened; can be evaluated.
        faults: what is wrong with each pair that was opened and cannot be evaluated.
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
    faults: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Nothing is missing and nothing is wrong."""
        return not self.problems and self.expected in (None, self.listed)


def quick_check(cfg: Config, on_error: str | None = None) -> list[str]:
    """What is checked before a model is loaded: that all files exist, and what a few of them hold.

    Args:
        on_error: of an evaluation; "skip" opens no file, since a bad one may be left out.

    Returns:
        Remarks, such as that the number of images is not the published benchmark's.

    Raises:
        UserError: the dataset cannot be evaluated.
    """
    report = check_dataset(cfg, sample=0 if on_error == "skip" else 4)
    if report.problems:
        bad_images = on_error is not None and report.valid < report.opened and len(report.problems) == 1
        hint = "; or go on without such images (--on-error skip)" if bad_images else ""
        raise UserError(f"{report.problems[0]}{hint}")
    return report.remarks


def check_dataset(cfg: Config, sample: int | None = 32, threads: int = 1) -> Report:
    """Check a config's dataset, and that its class words fit it. Files are read as an evaluation reads them.

    Args:
        cfg: a config; its ``expected_images`` is compared where it is given.
        sample: open this many pairs, evenly spaced; None opens all.
        threads: how many files are opened at a time (each by a process of its own).

    Raises:
        UserError: the config itself is wrong. What MMSegmentation raises on wrong settings of a dataset is passed on.
    """
    report = _check_files(cfg, sample, threads)
    tool = likely_tool(report.root) if report.problems else None
    if tool is not None:
        report.remarks.append(tool)
    return report


def _check_files(cfg: Config, sample: int | None, threads: int) -> Report:
    name, parts = dataset_name(cfg), plain_settings(cfg.test_dataloader.dataset)
    report = Report(name, user_path(parts[0].get("data_root") or ""), cfg.get("expected_images"))
    # MMSegmentation's dataset classes skip what is missing, or stop with an assertion that does not name it.
    report.problems += [fault for part in parts for fault in _missing_places(part)]
    if report.problems:
        return report
    try:
        dataset = CheckedDataset(cfg.test_dataloader.dataset)
    except UserError as error:
        report.problems.append(str(error))
        return report
    classes, ignored, words = dataset.metainfo["classes"], dataset.ignore_index, len(class_words(cfg))
    if words != len(classes):
        fault = f"the names file or class_names of {name} has {words} classes, the dataset {len(classes)}"
        report.problems.append(f"{fault}; give one line for each class, in label order")
    report.problems += _other_metrics(cfg, ignored)
    if 0 <= ignored < len(classes):
        report.remarks.append(f"class {ignored} ({classes[ignored]}) is not counted: it is the dataset's ignore_index")
    for plain in plain_datasets(dataset.dataset):
        _check_names(report, plain)
    if report.expected not in (None, dataset.total):
        source = source_of(plain_datasets(dataset.dataset)[0])
        counted = f"{dataset.total:,} image{'s' * (dataset.total != 1)}"
        published = f"the published benchmark has {report.expected:,}"
        report.remarks.append(f"{source} has {counted}, {published}; {PREPARE}")
    places = _find_pairs(report, dataset)
    if sample is not None:
        places = [places[k] for k in np.linspace(0, len(places) - 1, min(sample, len(places))).round().astype(int)]
    processes = threads if 1 < threads < len(places) else 0
    loader = DataLoader(Subset(dataset, places), batch_size=None, collate_fn=_summary, num_workers=processes)
    with reading():
        samples = list(tqdm(loader, desc=name, unit="file", disable=None, leave=False))
    report.faults = [sample.fault for sample in samples if sample.fault]
    report.opened, report.valid = len(places), len(places) - len(report.faults)
    if report.faults:
        count = f"{len(report.faults):,} of the {len(places):,} pairs opened are wrong"
        report.problems.append(f"{count}: {report.faults[0]}")
    picture_remarks = [sample.remark for sample in samples if sample.remark]
    if picture_remarks:
        report.remarks.append(f"{len(picture_remarks):,} of the images opened: {picture_remarks[0]}")
    seen: set[int] = set().union(*(sample.labels for sample in samples))
    if len(classes) == 1:
        report.remarks.append(
            f"there is one class, {classes[0]}, which every pixel that counts gets, so mIoU is always 100; add what "
            "else is in the images as a second class, such as background"
        )
    if len(classes) == 2 and len(seen) == 2 and ignored in seen:
        never = 1 - min(seen - {ignored})
        report.remarks.append(
            f"the masks opened have class {1 - never} and ignored pixels only, so class {never} ({classes[never]}) is "
            "never counted; masks of 0 and 255 for two classes need 0 and 1"
        )
    return report


class OpenedSample(NamedTuple):
    """What is wrong with a sample, or None; a remark on how it was read, or None; the labels in its ground truth."""

    fault: str | None
    remark: str | None
    labels: list[int]


def _summary(item: dict[str, Any]) -> OpenedSample:
    sample = item["data_samples"]
    labels = [] if sample.failure else sample.gt_sem_seg.data.unique().tolist()
    return OpenedSample(sample.failure, next(iter(sample.remarks), None), labels)


def _other_metrics(cfg: Config, ignored: int) -> Iterator[str]:
    """Metrics of the config that would not count what the dataset says."""
    metrics = cfg.get("test_evaluator") or []
    for metric in metrics if isinstance(metrics, list | tuple) else [metrics]:
        kind = getattr(metric.get("type"), "__name__", metric.get("type"))
        given = metric.get("ignore_index", VOID if str(kind).endswith("IoUMetric") else None)
        if given not in (None, ignored):
            yield f"test_evaluator {kind} ignores {given}, the dataset {ignored}; give both the same ignore_index"


def _missing_places(settings: Any) -> list[str]:
    """The dataset's folders and its list file, as far as they do not exist."""
    root = user_path(settings.get("data_root") or "")
    if not root.is_dir():
        where = "" if root.is_absolute() else f" in {Path.cwd()}"
        return [f"root {str(root)[:400]} does not exist{where}; {PREPARE}, or give --data-root or CLEARCLIP_DATA"]
    prefix = settings.get("data_prefix", {"seg_map_path": ""})
    if "seg_map_path" not in prefix:
        raise UserError(f"data_prefix {dict(prefix)} has no folder of masks; give it seg_map_path")
    places = [root / user_path(name or "") for name in (settings.get("ann_file"), *prefix.values())]
    return [f"{place} does not exist; {PREPARE}" for place in places if not place.exists()]


def _kind(name: str) -> str:
    return name.lower().replace(".jpeg", ".jpg").replace(".tiff", ".tif")


def _check_names(report: Report, dataset: BaseSegDataset) -> None:
    """Repeated lines of a list file, and images that a folder has but the dataset does not take."""
    source, suffix = source_of(dataset), dataset.img_suffix
    images = {info["img_path"] for _, info in entries(dataset)}
    if len(images) < len(dataset):
        report.problems.append(f"{source} names an image more than once; remove repeated lines")
    if not dataset.ann_file:
        there = fileio.list_dir_or_file(source, list_dir=False, recursive=True)
        left = sorted(name for name in there if _kind(name).endswith(_kind(suffix)) and not name.endswith(suffix))
        if left:
            report.problems.append(
                f"{len(left):,} images in {source} do not end in img_suffix {suffix!r} and would be left out "
                f"({left[0]}); rename them, or list names in an ann_file"
            )


def _remedy(name: str, dataset: BaseSegDataset) -> str:
    """What to do about a file that is missing."""
    source, suffix = source_of(dataset), dataset.img_suffix
    if dataset.ann_file:
        first_line = next((line.split() for line in _lines(dataset.ann_file) if line.strip()), [])
        if len(first_line) > 1:
            folders = [str(Path(path.lstrip("/")).parent) for path in first_line[:2]]
            return (
                f"the lines of {source} name an image and its mask, as Datumaro and CVAT write them: leave "
                f"ann_file out and give data_prefix=dict(img_path={folders[0]!r}, seg_map_path={folders[1]!r})"
            )
    if name == suffix:
        return f"{source} has a blank line: remove it"
    if name.endswith(2 * suffix):
        return f"{source} names images with their suffix, which img_suffix adds: remove it from the list"
    return f"save {source} without a byte order mark" if name.startswith("\ufeff") else PREPARE


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):  # it is elsewhere, or of another encoding, which is told when it is read
        return []


def _find_pairs(report: Report, dataset: CheckedDataset) -> list[int]:
    """Look for every image and mask by name. Returns the places of those of which both exist."""
    found = list(entries(dataset.dataset))
    pairs = [(Path(info["img_path"]), Path(info["seg_map_path"])) for _, info in found]
    # Listing a folder is far quicker than asking for each of its files, above all over a network.
    folders = [folder for folder in {path.parent for pair in pairs for path in pair} if folder.is_dir()]
    files = {Path(entry) for folder in folders for entry in os.scandir(folder) if entry.is_file()}
    for index, what in enumerate(("image", "mask")):
        lost = [place for place, pair in enumerate(pairs) if pair[index] not in files]
        if lost:
            path, (plain, _) = pairs[lost[0]][index], found[lost[0]]
            fault = f"{what} {path} is missing ({len(lost):,} of {len(pairs):,} are)"
            report.problems.append(f"{fault}; {_remedy(path.name, plain)}")
    there = [place for place, pair in enumerate(pairs) if files.issuperset(pair)]
    report.listed, report.pairs = len(pairs), len(there)
    return there

"""Is a dataset complete? Folders, list file, every image and mask by name, and what some of the files hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
from clearclip.evaluation.checked_dataset import CheckedDataset, explaining_dead_workers
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
        images: number of images that belong to it: by its list file, else those in the folder.
        images_with_mask: how many of these exist, and their masks, too.
        opened, valid: how many of those were opened, and how many of the opened ones can be evaluated.
        faults: what is wrong with each image or mask that was opened and cannot be evaluated.
        problems: what prevents an evaluation, each with its remedy.
        remarks: what makes the result differ from the published one, or is unusual.
    """

    name: str
    root: Path
    expected: int | None
    images: int = 0
    images_with_mask: int = 0
    opened: int = 0
    valid: int = 0
    faults: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Nothing is missing and nothing is wrong."""
        return not self.problems and self.expected in (None, self.images)


def quick_check(cfg: Config, on_error: str | None = None) -> list[str]:
    """What is checked before a model is loaded: that all files exist, and what a few of them hold.

    Args:
        on_error: of an evaluation; "skip" opens no file, since a bad one may be left out.

    Returns:
        Remarks, such as that the number of images is not the published benchmark's.

    Raises:
        UserError: the dataset cannot be evaluated.
    """
    sample = 4
    if on_error == "skip":
        sample = 0
    report = check_dataset(cfg, sample)
    if not report.problems:
        return report.remarks
    problem = report.problems[0]
    only_bad_images = len(report.problems) == 1 and report.valid < report.opened
    if on_error is not None and only_bad_images:
        problem += "; or go on without such images (--on-error skip)"
    raise UserError(problem)


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
    # Data straight from an annotation tool are laid out otherwise, and one remark is worth all problems.
    if report.problems:
        tool_remark = likely_tool(report.root)
        if tool_remark is not None:
            report.remarks.append(tool_remark)
    return report


def _check_files(cfg: Config, sample: int | None, threads: int) -> Report:
    name = dataset_name(cfg)
    settings = plain_settings(cfg.test_dataloader.dataset)
    report = Report(name, user_path(settings[0].get("data_root") or ""), cfg.get("expected_images"))
    # MMSegmentation's dataset classes skip what is missing, or stop with an assertion that does not name it.
    for dataset_settings in settings:
        report.problems += _missing_folders(dataset_settings)
    if report.problems:
        return report
    try:
        dataset = CheckedDataset(cfg.test_dataloader.dataset)
    except UserError as error:
        report.problems.append(str(error))
        return report
    _check_classes(report, cfg, dataset)
    for plain_dataset in plain_datasets(dataset.dataset):
        _check_file_names(report, plain_dataset)
    if report.expected not in (None, dataset.total):
        source = source_of(plain_datasets(dataset.dataset)[0])
        count = f"{dataset.total:,} image{'s' * (dataset.total != 1)}"
        report.remarks.append(f"{source} has {count}, the published benchmark has {report.expected:,}; {PREPARE}")
    indexes = _find_files(report, dataset)
    if sample is not None:
        # Evenly spaced: names follow the recording, and neighbours would all be of one kind.
        positions = np.linspace(0, len(indexes) - 1, min(sample, len(indexes))).round().astype(int)
        indexes = [indexes[position] for position in positions]
    samples = _open_samples(dataset, indexes, threads, name)
    _report_samples(report, samples)
    _check_labels(report, dataset, samples)
    return report


def _check_classes(report: Report, cfg: Config, dataset: CheckedDataset) -> None:
    """Whether words, classes, metrics and the ignored label fit together."""
    classes, ignore_index = dataset.metainfo["classes"], dataset.ignore_index
    word_count = len(class_words(cfg))
    if word_count != len(classes):
        report.problems.append(
            f"the names file or class_names of {report.name} has {word_count} classes, the dataset {len(classes)}; "
            "give one line for each class, in label order"
        )
    report.problems += _metrics_that_disagree(cfg, ignore_index)
    if 0 <= ignore_index < len(classes):
        name = classes[ignore_index]
        report.remarks.append(f"class {ignore_index} ({name}) is not counted: it is the dataset's ignore_index")
    if len(classes) == 1:
        report.remarks.append(
            f"there is one class, {classes[0]}, which every pixel that counts gets, so mIoU is always 100; add what "
            "else is in the images as a second class, such as background"
        )


class OpenedSample(NamedTuple):
    """What is wrong with a sample, or None; a remark on how it was read, or None; the labels in its ground truth."""

    fault: str | None
    remark: str | None
    labels: list[int]


def _open_samples(dataset: CheckedDataset, indexes: Sequence[int], threads: int, name: str) -> list[OpenedSample]:
    """Read images and masks as an evaluation does, several at a time."""
    # Starting processes takes longer than reading a few files.
    processes = threads if 1 < threads < len(indexes) else 0
    subset = Subset(dataset, indexes)
    loader = DataLoader(subset, batch_size=None, collate_fn=_summarize, num_workers=processes)
    with explaining_dead_workers():
        return list(tqdm(loader, desc=name, unit="file", disable=None, leave=False))


def _summarize(item: dict[str, Any]) -> OpenedSample:
    """What a report needs of a sample. It is sent from process to process, so neither picture nor mask is in it."""
    sample = item["data_samples"]
    remark = next(iter(sample.remarks), None)
    if sample.failure:
        return OpenedSample(sample.failure, remark, [])
    return OpenedSample(None, remark, sample.gt_sem_seg.data.unique().tolist())


def _report_samples(report: Report, samples: Sequence[OpenedSample]) -> None:
    """What is wrong with the files that were opened, and remarks on how they were read."""
    report.faults = [sample.fault for sample in samples if sample.fault]
    report.opened = len(samples)
    report.valid = len(samples) - len(report.faults)
    if report.faults:
        count = f"{len(report.faults):,} of the {len(samples):,} pairs opened are wrong"
        report.problems.append(f"{count}: {report.faults[0]}")
    picture_remarks = [sample.remark for sample in samples if sample.remark]
    if picture_remarks:
        report.remarks.append(f"{len(picture_remarks):,} of the images opened: {picture_remarks[0]}")


def _check_labels(report: Report, dataset: CheckedDataset, samples: Sequence[OpenedSample]) -> None:
    """Binary masks of 0 and 255, of which 255 is ignored by default, so that one class is never counted."""
    classes, ignore_index = dataset.metainfo["classes"], dataset.ignore_index
    labels: set[int] = set()
    for sample in samples:
        labels.update(sample.labels)
    if len(classes) == 2 and len(labels) == 2 and ignore_index in labels:
        missing_label = 1 - min(labels - {ignore_index})
        report.remarks.append(
            f"the masks opened have class {1 - missing_label} and ignored pixels only, so class {missing_label} "
            f"({classes[missing_label]}) is never counted; masks of 0 and 255 for two classes need 0 and 1"
        )


def _metrics_that_disagree(cfg: Config, ignore_index: int) -> Iterator[str]:
    """Metrics of the config that would not count what the dataset says."""
    metrics = cfg.get("test_evaluator") or []
    if not isinstance(metrics, list | tuple):
        metrics = [metrics]
    for metric in metrics:
        name = getattr(metric.get("type"), "__name__", metric.get("type"))
        default = VOID if str(name).endswith("IoUMetric") else None
        ignored_by_metric = metric.get("ignore_index", default)
        if ignored_by_metric not in (None, ignore_index):
            yield (
                f"test_evaluator {name} ignores {ignored_by_metric}, the dataset {ignore_index}; give both the same "
                "ignore_index"
            )


def _missing_folders(settings: Any) -> list[str]:
    """The dataset's folders and its list file, as far as they do not exist."""
    root = user_path(settings.get("data_root") or "")
    if not root.is_dir():
        where = ""
        # A relative path fails where the command was started from another folder.
        if not root.is_absolute():
            where = f" in {Path.cwd()}"
        return [f"root {str(root)[:400]} does not exist{where}; {PREPARE}, or give --data-root or CLEARCLIP_DATA"]
    prefix = settings.get("data_prefix", {"seg_map_path": ""})
    if "seg_map_path" not in prefix:
        raise UserError(f"data_prefix {dict(prefix)} has no folder of masks; give it seg_map_path")
    paths = [root / user_path(name or "") for name in (settings.get("ann_file"), *prefix.values())]
    return [f"{path} does not exist; {PREPARE}" for path in paths if not path.exists()]


def _usual_suffix(name: str) -> str:
    """A file's name in small letters, with one spelling of each format's suffix."""
    return name.lower().replace(".jpeg", ".jpg").replace(".tiff", ".tif")


def _check_file_names(report: Report, dataset: BaseSegDataset) -> None:
    """Repeated lines of a list file, and images that a folder has but the dataset does not take."""
    source = source_of(dataset)
    suffix = dataset.img_suffix
    image_paths = {info["img_path"] for _, info in entries(dataset)}
    if len(image_paths) < len(dataset):
        report.problems.append(f"{source} names an image more than once; remove repeated lines")
    if dataset.ann_file:
        return
    left_out = []
    for name in fileio.list_dir_or_file(source, list_dir=False, recursive=True):
        if _usual_suffix(name).endswith(_usual_suffix(suffix)) and not name.endswith(suffix):
            left_out.append(name)
    if left_out:
        report.problems.append(
            f"{len(left_out):,} images in {source} do not end in img_suffix {suffix!r} and would be left out "
            f"({min(left_out)}); rename them, or list names in an ann_file"
        )


def _missing_file_remedy(name: str, dataset: BaseSegDataset) -> str:
    """What to do about a file that is missing."""
    source = source_of(dataset)
    suffix = dataset.img_suffix
    columns: list[str] = []
    if dataset.ann_file:
        columns = _first_line(dataset.ann_file).split()
    if len(columns) > 1:
        image_folder, mask_folder = (str(Path(path.lstrip("/")).parent) for path in columns[:2])
        return (
            f"the lines of {source} name an image and its mask, as Datumaro and CVAT write them: leave ann_file out "
            f"and give data_prefix=dict(img_path={image_folder!r}, seg_map_path={mask_folder!r})"
        )
    if name == suffix:
        return f"{source} has a blank line: remove it"
    if name.endswith(2 * suffix):
        return f"{source} names images with their suffix, which img_suffix adds: remove it from the list"
    if name.startswith("\ufeff"):
        return f"save {source} without a byte order mark"
    return PREPARE


def _first_line(path: str) -> str:
    """The first line of a text file that is not blank."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):  # it is elsewhere, or of another encoding, which is told when it is read
        return ""
    return next((line for line in lines if line.strip()), "")


def _find_files(report: Report, dataset: CheckedDataset) -> list[int]:
    """Look for every image and mask by name. Returns the indexes of those images that exist with their masks."""
    datasets: list[BaseSegDataset] = []
    paths_by_noun: dict[str, list[Path]] = {"image": [], "mask": []}
    for plain_dataset, info in entries(dataset.dataset):
        datasets.append(plain_dataset)
        paths_by_noun["image"].append(Path(info["img_path"]))
        paths_by_noun["mask"].append(Path(info["seg_map_path"]))
    existing_files = _files_beside([*paths_by_noun["image"], *paths_by_noun["mask"]])
    for noun, paths in paths_by_noun.items():
        missing_indexes = [index for index, path in enumerate(paths) if path not in existing_files]
        if missing_indexes:
            first_missing = missing_indexes[0]
            path = paths[first_missing]
            remedy = _missing_file_remedy(path.name, datasets[first_missing])
            count = f"{len(missing_indexes):,} of {len(paths):,} are"
            # One line for all of them: thousands are missing where a folder is.
            report.problems.append(f"{noun} {path} is missing ({count}); {remedy}")
    complete: list[int] = []
    for index, (image, mask) in enumerate(zip(*paths_by_noun.values(), strict=True)):
        if image in existing_files and mask in existing_files:
            complete.append(index)
    report.images = len(datasets)
    report.images_with_mask = len(complete)
    return complete


def _files_beside(paths: Sequence[Path]) -> set[Path]:
    """All files in the folders of these.

    Listing a folder is far quicker than asking for each of its files, above all over a network.
    """
    files: set[Path] = set()
    for folder in {path.parent for path in paths}:
        if folder.is_dir():
            files.update(Path(entry) for entry in os.scandir(folder) if entry.is_file())
    return files

"""A dataset whose faults come out as facts about an image, not as a crash in a worker."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv import transforms
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from PIL import Image
from torch.utils.data import Dataset

from clearclip.evaluation.datasets import build_dataset, entries, plain_datasets, source_of
from clearclip.evaluation.image_loading import bundled_loader
from clearclip.evaluation.mask_loading import PREPARE, VOID, LoadLabels
from clearclip.evaluation.mmseg_import import mmseg_scope
from clearclip.rasters.levels import PictureWarning
from clearclip.utils.continuation import command_to_continue
from clearclip.utils.errors import UserError
from clearclip.utils.seeds import seeded

#: Beyond, the confusion matrix of a method takes more than 800 MB.
MOST_CLASSES = 10_000
# How a file begins, what it is, and how it ends if it is whole. Decoders fill what is missing with grey and go on.
_ENDINGS = {b"\xff\xd8": ("JPEG", b"\xff\xd9"), b"\x89PNG": ("PNG", b"IEND")}
_DAMAGE = re.compile(rb"(?:Corrupt JPEG data|Premature end of JPEG)[^\n]*\n?")


@DATASETS.register_module()
class CheckedDataset(Dataset):
    """Wraps a test dataset and checks every sample. Masks are read by :class:`LoadLabels`.

    Args:
        dataset: an MMSegmentation dataset, plain or in ConcatDataset and RepeatDataset, or its config.
        limit: evaluate the first so many images only.
        masks: whether ground truth is loaded; without it images are only segmented.

    Attributes:
        names: of all images, relative to the dataset's root.
        todo: indices of the images that are left.

    Each item has ``inputs``, (3, H, W), and ``data_samples``, whose metainfo has the image's ``img_path``, ``index``
    in the dataset, ``failure``: None, or what is wrong with the image (``inputs`` is None then), and ``remarks``: what
    a user should know about how it was read. The ground truth has as few bytes as its labels need.

    Raises:
        UserError: no image, too many classes, or settings that contradict each other.
    """

    def __init__(self, dataset: Any, limit: int | None = None, masks: bool = True):
        # The steps of a pipeline are looked up in MMSegmentation's registry, as its runner would.
        with mmseg_scope():
            self.dataset = build_dataset(dataset) if isinstance(dataset, dict) else dataset
        self.names: list[str] = []
        for plain_dataset, info in entries(self.dataset):
            folders = (plain_dataset.data_root or ".", plain_dataset.data_prefix["img_path"])
            self.names.append(_relative(info["img_path"], *folders))
        datasets = plain_datasets(self.dataset)
        if not self.names:
            raise UserError(f"{source_of(datasets[0])} has no image (*{datasets[0].img_suffix}); {PREPARE}")
        self.ignore_index = datasets[0].ignore_index
        self.metainfo = {**self.dataset.metainfo, "ignore_index": self.ignore_index}
        self._check_classes(datasets)
        self.has_masks = masks
        for plain_dataset in datasets:
            self._replace_steps(plain_dataset)
        self.total = len(self.names) if limit is None else min(limit, len(self.names))
        # Images of earlier sessions are taken out of this list; the others keep their indices.
        self.todo = list(range(self.total))

    def _check_classes(self, datasets: Sequence[BaseSegDataset]) -> None:
        if any(dataset.ignore_index != self.ignore_index for dataset in datasets):
            raise UserError("the datasets of ConcatDataset differ in ignore_index; give all the same")
        classes = self.metainfo["classes"]
        if len(classes) > MOST_CLASSES:
            raise UserError(f"the dataset has {len(classes):,} classes; at most {MOST_CLASSES:,} can be compared")
        for dataset in datasets:
            left_out = {*dataset.METAINFO.get("classes", ())} - {*classes}
            if len(classes) > VOID and left_out:
                raise UserError(f"MMSegmentation marks classes left out with {VOID}, which is a class; give them all")

    def _replace_steps(self, dataset: BaseSegDataset) -> None:
        """Put our steps into a pipeline; without masks, what loads them is left out."""
        steps = dataset.pipeline.transforms
        if not self.has_masks:
            steps[:] = [step for step in steps if not isinstance(step, LoadAnnotations)]
        steps[:] = [bundled_step(step, dataset) for step in steps]

    def __len__(self) -> int:
        return len(self.todo)

    def leave_out(self, finished: Collection[int]) -> None:
        """Leave out these images, by their index: an earlier session has them."""
        self.todo = [index for index in self.todo if index not in finished]

    def image(self, index: int) -> np.ndarray:
        """The image of this index as the pipeline loads it, (H, W, 3) uint8 RGB, at its own size."""
        plain_dataset, info = next(islice(entries(self.dataset), index, None))
        load = plain_dataset.pipeline.transforms[0]
        loaded = load(dict(info))
        picture = np.clip(loaded["img"], 0, 255).astype(np.uint8)
        if picture.ndim == 2:
            picture = picture[..., None]
        return np.ascontiguousarray(np.broadcast_to(picture[..., 2::-1], (*picture.shape[:2], 3)))

    @cached_property
    def file_stems(self) -> list[str]:
        """A name for files about each image: its folders below the dataset's and its own, in one word."""
        stems: list[str] = []
        for plain_dataset, info in entries(self.dataset):
            path = _relative(info["img_path"], plain_dataset.data_prefix["img_path"])
            stems.append(os.path.splitext(path)[0].replace("/", "-"))  # noqa: PTH122 (a string)
        count_by_stem = Counter(stems)
        # Names that repeat in the folders of a ConcatDataset get their index.
        return [stem if count_by_stem[stem] == 1 else f"{stem}-{index}" for index, stem in enumerate(stems)]

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = self.todo[position]
        info = self.dataset.get_data_info(index)
        path = info["img_path"]
        failure = None
        remarks: list[str] = []
        try:
            # The image comes last: its format says below whose messages are waited for.
            paths = [info["img_path"]]
            if self.has_masks:
                paths.insert(0, info["seg_map_path"])
            for path in paths:
                format_name = check_whole(path)
            # Steps of a pipeline may be random: an image is the same in every run and process.
            with _damage_messages(format_name == "JPEG") as messages, picture_remarks() as remarks, seeded(index):
                item = self.dataset[index]
            if messages:
                raise OSError(messages[0])
            if self.has_masks:
                self._check(item, info["seg_map_path"])
        except UserError as error:
            failure = str(error)
        except Exception as error:  # whatever a decoder makes of a damaged file
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            failure = f"{path} cannot be read ({reason}); unpack or convert it again"
        if failure is not None:
            item = {"inputs": None, "data_samples": SegDataSample()}
        item["data_samples"].set_metainfo(
            {"img_path": info["img_path"], "index": index, "failure": failure, "remarks": remarks}
        )
        return item

    def _check(self, item: dict[str, Any], mask_path: str) -> None:
        sample = item["data_samples"]
        if not isinstance(sample, SegDataSample) or not {"gt_sem_seg", "ori_shape"} <= {*sample.all_keys()}:
            raise UserError(
                "the pipeline must load ground truth (LoadAnnotations) and end with PackSegInputs, with one version of "
                "each image (TestTimeAug is for MMSegmentation's own runner)"
            )
        truth = sample.gt_sem_seg.data
        mask_shape = tuple(truth.shape[-2:])
        image_shape = tuple(sample.ori_shape[:2])
        if mask_shape != image_shape:
            hint = "in the pipeline LoadAnnotations comes after what changes the size"
            raise UserError(f"mask {mask_path} has shape {mask_shape}, its image {image_shape}; {hint}, or {PREPARE}")
        smallest, largest = torch.aminmax(truth)
        # The ignored label has to fit, too: PyTorch compares modulo 256 with a byte.
        if smallest >= 0 and largest < 256 and 0 <= self.ignore_index < 256:
            sample.gt_sem_seg.data = truth.to(torch.uint8)
        else:
            sample.gt_sem_seg.data = truth.to(torch.int32)


def bundled_step(step: Any, dataset: BaseSegDataset) -> Any:
    """A step of a pipeline, or ours in its place: configs name MMSegmentation's, as its own inference expects."""
    if type(step) is LoadAnnotations:
        return LoadLabels(step, dataset)
    if type(step) is transforms.LoadImageFromFile:
        return bundled_loader(step)
    return step


@contextmanager
def picture_remarks() -> Iterator[list[str]]:
    """What our reader warns of while a picture is read, in place of a line for each of thousands."""
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PictureWarning)
        yield remarks
    for warning in caught:
        if issubclass(warning.category, PictureWarning):
            remarks.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextmanager
def explaining_dead_workers() -> Iterator[None]:
    """What PyTorch raises where a process that reads images is gone becomes a UserError."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a process that reads images was killed, perhaps for its memory ({error}); {command_to_continue()} "
            "goes on; --workers 0 does without such processes (eval_all.py: --cfg-options "
            "test_dataloader.num_workers=0)"
        ) from error


def _relative(path: str, *folders: str) -> str:
    """A path below the first folder that holds it, with slashes."""
    for folder in folders:
        name = os.path.relpath(path, folder).replace(os.sep, "/")
        if not name.startswith("../"):
            return name
    return Path(path).name


def check_whole(path: str) -> str | None:
    """Raise where an image file is cut short.

    Returns:
        "JPEG", "PNG", or None for other kinds.

    Raises:
        OSError: it is missing, empty or truncated.
    """
    with open(path, "rb") as file:
        head = file.read(4)
        file.seek(max(0, file.seek(0, 2) - 1024))
        tail = file.read()
    for signature, (format_name, ending) in _ENDINGS.items():
        if head.startswith(signature):
            if ending not in tail:
                # Unusual but whole files exist; a full decode decides.
                with Image.open(path, formats=[format_name]) as image:
                    image.load()
            return format_name
    return None


@contextmanager
def _damage_messages(is_jpeg: bool) -> Iterator[list[str]]:
    """What libjpeg says about damaged data, which it fills with whatever comes: to the process's stderr only."""
    messages: list[str] = []
    if not is_jpeg or sys.stderr is None:
        yield messages
        return
    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        yield messages
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield messages
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            text = file.read()
            messages += [line.decode(errors="replace").strip() for line in _DAMAGE.findall(text)]
            os.write(2, _DAMAGE.sub(b"", text))

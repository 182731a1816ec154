"""A dataset whose faults come out as facts about an image, not as a crash in a worker."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
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
from clearclip.evaluation.image_loading import own_loader
from clearclip.evaluation.mask_loading import PREPARE, VOID, LoadLabels
from clearclip.evaluation.mmseg_import import mmseg_scope
from clearclip.rasters.levels import PictureWarning
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
        parts = plain_datasets(self.dataset)
        first, found = parts[0], [(part, info["img_path"]) for part, info in entries(self.dataset)]
        if not found:
            raise UserError(f"{source_of(first)} has no image (*{first.img_suffix}); {PREPARE}")
        self.ignore_index = first.ignore_index
        if any(part.ignore_index != self.ignore_index for part in parts):
            raise UserError("the datasets of ConcatDataset differ in ignore_index; give all the same")
        self.metainfo = {**self.dataset.metainfo, "ignore_index": self.ignore_index}
        classes = len(self.metainfo["classes"])
        if classes > MOST_CLASSES:
            raise UserError(f"the dataset has {classes:,} classes; at most {MOST_CLASSES:,} can be compared")
        for part in parts:
            if classes > VOID and {*part.METAINFO.get("classes", ())} - {*self.metainfo["classes"]}:
                raise UserError(f"MMSegmentation marks classes left out with {VOID}, which is a class; give them all")
            steps = part.pipeline.transforms
            steps[:] = [own_step(step, part) for step in steps if masks or not isinstance(step, LoadAnnotations)]
        self.has_masks = masks
        self.total = len(found) if limit is None else min(limit, len(found))
        self.names = [_relative(path, part.data_root or ".", part.data_prefix["img_path"]) for part, path in found]
        self.todo = list(range(self.total))

    def __len__(self) -> int:
        return len(self.todo)

    def leave_out(self, finished: Collection[int]) -> None:
        """Leave out these images, by their index: an earlier session has them."""
        self.todo = [index for index in self.todo if index not in finished]

    def image(self, index: int) -> np.ndarray:
        """The image of this index as the pipeline loads it, (H, W, 3) uint8 RGB, at its own size."""
        plain, info = next(islice(entries(self.dataset), index, None))
        loaded = plain.pipeline.transforms[0](dict(info))
        picture = np.clip(loaded["img"], 0, 255).astype(np.uint8)
        if picture.ndim == 2:
            picture = picture[..., None]
        return np.ascontiguousarray(np.broadcast_to(picture[..., 2::-1], (*picture.shape[:2], 3)))

    @cached_property
    def file_stems(self) -> list[str]:
        """A name for files about each image: its folders below the dataset's and its own, in one word."""
        paths = [_relative(info["img_path"], part.data_prefix["img_path"]) for part, info in entries(self.dataset)]
        stems = [os.path.splitext(path)[0].replace("/", "-") for path in paths]  # noqa: PTH122 (a string)
        often = Counter(stems)
        return [stem if often[stem] == 1 else f"{stem}-{index}" for index, stem in enumerate(stems)]

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = self.todo[position]
        info = self.dataset.get_data_info(index)
        path, failure = info["img_path"], None
        remarks: list[str] = []
        try:
            for path in (info["seg_map_path"], info["img_path"]) if self.has_masks else (info["img_path"],):
                kind = check_whole(path)
            # Steps of a pipeline may be random: an image is the same in every run and process.
            with _damage(kind == "JPEG") as damage, picture_remarks() as remarks, seeded(index):
                item = self.dataset[index]
            if damage:
                raise OSError(damage[0])
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
        shape, wanted = tuple(truth.shape[-2:]), tuple(sample.ori_shape[:2])
        if shape != wanted:
            hint = "in the pipeline LoadAnnotations comes after what changes the size"
            raise UserError(f"mask {mask_path} has shape {shape}, its image {wanted}; {hint}, or {PREPARE}")
        low, high = torch.aminmax(truth)
        small = low >= 0 and high < 256 and 0 <= self.ignore_index < 256  # PyTorch compares modulo 256 with a byte
        sample.gt_sem_seg.data = truth.to(torch.uint8 if small else torch.int32)


def own_step(step: Any, dataset: BaseSegDataset) -> Any:
    """A step of a pipeline, or ours in its place: configs name MMSegmentation's, as its own inference expects."""
    if type(step) is LoadAnnotations:
        return LoadLabels(step, dataset)
    if type(step) is transforms.LoadImageFromFile:
        return own_loader(step)
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
def reading() -> Iterator[None]:
    """What PyTorch raises where a process that reads images is gone becomes a UserError."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a process that reads images was killed, perhaps for its memory ({error}); go on with --resume and fewer "
            "--workers"
        ) from error


def _relative(path: str, *folders: str) -> str:
    """A path below the first folder that holds it, with slashes."""
    names = (os.path.relpath(path, folder).replace(os.sep, "/") for folder in folders)
    return next((name for name in names if not name.startswith("../")), Path(path).name)


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
    kind, ending = next((how for start, how in _ENDINGS.items() if head.startswith(start)), (None, b""))
    if ending not in tail:
        # Unusual but whole files exist; a full decode decides.
        with Image.open(path, formats=[kind]) as image:
            image.load()
    return kind


@contextmanager
def _damage(wanted: bool) -> Iterator[list[str]]:
    """What libjpeg says about damaged data, which it fills with whatever comes: to the process's stderr only."""
    said: list[str] = []
    if not wanted or sys.stderr is None:
        yield said
        return
    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        yield said
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            text = file.read()
            said += [line.decode(errors="replace").strip() for line in _DAMAGE.findall(text)]
            os.write(2, _DAMAGE.sub(b"", text))

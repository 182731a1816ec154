"""A segmentor that labels pixels by their colour, on both sides: MMSegmentation's Runner, and ours in CLIP's place."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import DATASETS, METRICS, MODELS
from PIL import Image

from clearclip import ClearCLIP
from clearclip.evaluation.run import evaluate

NAMES = ["sky", "tree", "road", "car"]
NORMALISE = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0], bgr_to_rgb=True)
_numbers = itertools.count()


def by_colour(images: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits (B, classes, H, W) of normalised images."""
    weight = torch.randn(classes, 3, generator=torch.Generator().manual_seed(3))
    return torch.einsum("kc,bchw->bkhw", weight, images)


@MODELS.register_module()
class ColourSegmentor(BaseSegmentor):
    """MMSegmentation's side."""

    align_corners = False

    def __init__(self, classes: int, data_preprocessor: dict):
        super().__init__(MODELS.build(data_preprocessor))
        self.classes = classes

    def encode_decode(self, inputs, batch_data_samples=None):
        return by_colour(inputs, self.classes)

    def predict(self, inputs, data_samples=None):
        return self.postprocess_result(self.encode_decode(inputs), data_samples)

    extract_feat = loss = _forward = None


@METRICS.register_module()
class Areas(IoUMetric):
    """MMSegmentation's IoUMetric, whose areas (intersection, prediction, truth) are kept.

    One thing differs: what LoadAnnotations marks with 255 is ignored whatever the dataset's ``ignore_index``.
    """

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            truth = sample["gt_sem_seg"]["data"]
            truth[truth == 255] = self.ignore_index
        super().process(data_batch, data_samples)

    def compute_metrics(self, results):
        intersection, _, prediction, truth = (sum(part).numpy() for part in zip(*results, strict=True))
        self.areas = (intersection, prediction, truth)
        return super().compute_metrics(results)


@DATASETS.register_module()
class Drive(BaseSegDataset):
    METAINFO = dict(classes=NAMES, palette=[[k, k, k] for k in range(4)])


@DATASETS.register_module()
class MergedDrive(Drive):
    """A road with a car on it is a road."""

    @classmethod
    def get_label_map(cls, new_classes=None):
        return {0: 0, 1: 1, 2: 2, 3: 2}


@pytest.fixture(scope="module")
def clip(quick_name: str) -> ClearCLIP:
    """A model that labels pixels by their colour."""
    model = ClearCLIP.from_pretrained(quick_name, device="cpu")

    def predict(images, text, sizes, keep=False, methods=None, settings=None):
        found = []
        for image, size in zip(images, sizes, strict=True):
            logits = F.interpolate(by_colour(image[None], len(text.classes)), size, mode="bilinear")[0]
            found.append([(logits.argmax(0), logits)])
        return found

    def predict_labels(images, text, sizes, methods=None, settings=None, mark_invalid=False):
        return [torch.stack([labels]) for ((labels, _),) in predict(images, text, sizes)]

    model.predict = predict
    model.predict_labels = predict_labels
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Five images of one size; masks of the ids 0..3 and 255, and of the same and one more (reduced)."""
    root, rng = tmp_path_factory.mktemp("drive"), np.random.default_rng(0)
    for folder in ("images", "masks", "reduced", "alpha"):
        (root / folder).mkdir()
    for k in range(5):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((36, 30), Image.Resampling.BICUBIC).save(root / f"images/{k}.png")
        ids = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (6, 9)).repeat(5, 0).repeat(4, 1)
        Image.fromarray(ids).save(root / f"masks/{k}.png")
        Image.open(root / f"images/{k}.png").convert("RGBA").save(root / f"alpha/{k}.png")
        Image.fromarray(np.where(ids == 255, 0, ids + 1).astype(np.uint8)).save(root / f"reduced/{k}.png")
    (root / "list.txt").write_text("3\n1\n0\n")
    return root


def config(data: Path, pipeline=None, preprocessor=None, model_type="ClearCLIPSegmentation", loader=None, **dataset):
    dataset = (
        dict(
            type="Drive",
            data_root=str(data),
            data_prefix=dict(img_path="images", seg_map_path="masks"),
            img_suffix=".png",
            pipeline=pipeline or steps(),
        )
        | dataset
    )
    words = dataset.get("metainfo", {}).get("classes", NAMES)
    model = dict(type=model_type, class_names=list(words), data_preprocessor=preprocessor or preprocess())
    return Config(
        dict(model=model, test_dataloader=dict(batch_size=1, num_workers=0, dataset=dataset) | (loader or {}))
    )


def steps(*before: dict, load: dict | None = None, after: tuple = ()) -> list[dict]:
    """A pipeline: image, what comes before the ground truth is loaded, and after."""
    return [dict(type="LoadImageFromFile"), *before, dict(type="LoadAnnotations") | (load or {}), *after,
            dict(type="PackSegInputs")]  # fmt: skip


def preprocess(**options) -> dict:
    return dict(type="SegDataPreProcessor") | NORMALISE | options


def theirs(cfg: Config, folder: Path) -> tuple[np.ndarray, ...]:
    """Areas by MMSegmentation's Runner."""
    loader = cfg.test_dataloader.to_dict() | dict(sampler=dict(type="DefaultSampler", shuffle=False))
    ignore = loader["dataset"].get("dataset", loader["dataset"]).get("ignore_index", 255)
    preprocessor = cfg.model.data_preprocessor.to_dict()
    if preprocessor["type"] == "ImagePreprocessor":
        preprocessor["type"] = "SegDataPreProcessor"
    runner = Runner(
        model=dict(
            type="ColourSegmentor",
            classes=len(cfg.model.class_names),
            data_preprocessor=preprocessor,
        ),
        work_dir=str(folder),
        test_dataloader=loader,
        test_evaluator=dict(type="Areas", ignore_index=ignore),
        test_cfg=dict(type="TestLoop"),
        default_hooks=dict(logger=None, timer=None, checkpoint=None, param_scheduler=None),
        default_scope="mmseg",
        log_level="ERROR",
        experiment_name=f"theirs_{next(_numbers)}",
    )
    runner.test()
    return runner.test_evaluator.metrics[0].areas


def ours(cfg: Config, folder: Path, clip: ClearCLIP) -> tuple[np.ndarray, ...]:
    (found,) = evaluate(cfg, folder, model=clip)
    confusion = found.scores.confusion
    return confusion.diagonal(), confusion.sum(0), confusion.sum(1)


def same(cfg: Config, folder: Path, clip: ClearCLIP) -> None:
    wanted, found = theirs(cfg, folder), ours(cfg, folder, clip)
    assert wanted[2].sum() > 0
    np.testing.assert_array_equal(found, wanted)


RESIZE = dict(type="Resize", scale=(70, 50), keep_ratio=True)
FLIP = dict(type="RandomFlip", prob=1.0)


def copied(data: Path, folder: Path) -> Path:
    return Path(shutil.copytree(data, folder / "copy"))

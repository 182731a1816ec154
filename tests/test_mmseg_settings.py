"""MMSegmentation's settings mean here what they mean there: the areas of its Runner with its IoUMetric, or a refusal.

The model labels each pixel by its colour. There it is one of MMSegmentation's own segmentors, with its own loading and
post-processing; here it takes the place of CLIP in an evaluation.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import DATASETS, METRICS, MODELS
from mmseg.registry import TRANSFORMS as TRANSFORMS_REGISTRY
from PIL import EpsImagePlugin, Image

from clearclip import ClearCLIP, UserError
from clearclip.evaluation import ClearCLIPSegmentation, ConfusionMetric
from clearclip.evaluation.config import load_config
from clearclip.evaluation.dataset_report import check_dataset, quick_check
from clearclip.evaluation.hooks import PictureHook
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
#: Everything that is honoured: pipeline, preprocessor, dataset.
HONOURED = {
    "as it is": {},
    "fewer classes": dict(metainfo=dict(classes=["car", "sky"])),
    "other order": dict(metainfo=dict(classes=["car", "road", "tree", "sky"])),
    "merged classes": dict(type="MergedDrive", metainfo=dict(classes=["sky", "tree", "road"])),
    "one name twice": dict(type="BaseSegDataset", metainfo=dict(classes=["sky", "other", "other", "car"])),
    "reduced in both": dict(
        reduce_zero_label=True, data_prefix=dict(img_path="images", seg_map_path="reduced"),
        pipeline=steps(load=dict(reduce_zero_label=True)),
    ),
    "another ignored label": dict(ignore_index=2, data_prefix=dict(img_path="images", seg_map_path="reduced"),
                                  metainfo=dict(classes=[*NAMES, "more"]), type="BaseSegDataset"),
    "masks by OpenCV": dict(pipeline=steps(load=dict(imdecode_backend="cv2"))),
    "scale_factor": dict(pipeline=steps(dict(type="Resize", scale_factor=1.5))),
    "two scale_factors": dict(pipeline=steps(dict(type="Resize", scale_factor=(0.5, 2.0)))),
    "one scale": dict(pipeline=steps(dict(type="Resize", scale=40))),
    "any transform": dict(pipeline=steps(RESIZE, dict(type="CLAHE"), dict(type="RandomFlip", prob=0.0))),
    "flipped": dict(pipeline=steps(RESIZE, FLIP)),
    "flipped vertically": dict(pipeline=steps(FLIP | dict(direction="vertical"))),
    "flipped with the masks": dict(pipeline=steps(after=(FLIP,))),
    "cropped": dict(pipeline=steps(dict(type="CenterCrop", crop_size=(20, 24)))),
    "padded by the pipeline": dict(pipeline=steps(dict(type="Pad", size_divisor=32))),
    "float images": dict(pipeline=[dict(type="LoadImageFromFile", to_float32=True), *steps()[1:]]),
    "padded to a size": dict(preprocessor=preprocess(test_cfg=dict(size=(64, 80)))),
    "padded to a multiple": dict(preprocessor=preprocess(test_cfg=dict(size_divisor=32)), pipeline=steps(RESIZE, FLIP)),
    "padding of training": dict(preprocessor=preprocess(size=(64, 64), pad_val=9)),
    "scoped": dict(preprocessor=preprocess(type="mmseg.SegDataPreProcessor"), type="mmseg.Drive",
                   model_type="mmseg.ClearCLIPSegmentation"),
    "of MMEngine": dict(preprocessor=dict(type="mmengine.ImgDataPreprocessor") | NORMALISE),
    "our own": dict(preprocessor=dict(type="ImagePreprocessor", test_cfg=dict(size_divisor=32)) | NORMALISE),
    "RGB images": dict(preprocessor=preprocess(bgr_to_rgb=False)),
    "classes as types": dict(type=Drive, pipeline=steps(load=dict(type=LoadAnnotations))),
    "list": dict(ann_file="list.txt"),
    "indices": dict(indices=[4, 0]),
    "batches": dict(loader=dict(batch_size=2)),
    "incomplete batches left out": dict(loader=dict(batch_size=2, drop_last=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", HONOURED)
def test_honoured(name, data, clip, tmp_path):
    same(config(data, **HONOURED[name]), tmp_path, clip)


def test_wrapped_datasets(data, clip, tmp_path):
    """The same image may come again: each counts."""
    plain = config(data).test_dataloader.dataset.to_dict()
    twice = dict(type="RepeatDataset", times=2, dataset=plain | dict(ann_file="list.txt"))
    cfg = config(data)
    cfg.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[plain, twice])
    same(cfg, tmp_path, clip)
    # From a file, and with --data-root for all of them.
    file = tmp_path / "cfg_drive.py"
    for one in (plain, twice["dataset"]):
        one["data_root"] = "data/drive"
    file.write_text(f"model = {cfg.model.to_dict()!r}\ntest_dataloader = dict(num_workers=0, batch_size=1, dataset="
                    f"dict(type='ConcatDataset', datasets=[{plain!r}, {twice!r}]))\n")  # fmt: skip
    same(load_config(file, data_root=str(data)), tmp_path, clip)


def test_batches_of_several_sizes(data, clip, tmp_path):
    """MMSegmentation's preprocessor takes one size at a time; here it gets them so."""
    root = copied(data, tmp_path)
    for folder in ("images", "masks"):
        for name, size in (("1", (20, 44)), ("4", (20, 44)), ("3", (50, 50))):
            path = root / folder / f"{name}.png"
            Image.open(path).resize(size, Image.Resampling.NEAREST).save(path)
    cfg = config(root, preprocessor=preprocess(test_cfg=dict(size_divisor=32)))
    wanted = theirs(cfg, tmp_path)
    cfg.test_dataloader.batch_size = 5
    np.testing.assert_array_equal(ours(cfg, tmp_path, clip), wanted)


def test_new_style_configs(data, clip, tmp_path):
    """Pure Python, as MMEngine 0.9 has it: imported classes are types."""
    Path(tmp_path / "base.py").write_text(f"data_root = {str(data)!r}\n")
    Path(tmp_path / "cfg_lazy.py").write_text(f"""
from mmengine.config import read_base
with read_base():
    from .base import *
from mmcv.transforms import LoadImageFromFile, Resize
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmseg.models import SegDataPreProcessor
from clearclip.evaluation import ClearCLIPSegmentation
model = dict(type=ClearCLIPSegmentation, class_names={NAMES},
             data_preprocessor=dict(type=SegDataPreProcessor, **{NORMALISE}))
pipeline = [dict(type=LoadImageFromFile), dict(type=Resize, scale_factor=2.0), dict(type=LoadAnnotations),
            dict(type=PackSegInputs)]
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    type=BaseSegDataset, data_root=data_root, img_suffix=".png", metainfo=dict(classes={NAMES}), pipeline=pipeline,
    data_prefix=dict(img_path="images", seg_map_path="masks")))
""")
    cfg = load_config(tmp_path / "cfg_lazy.py")
    wanted = config(data, pipeline=steps(dict(type="Resize", scale_factor=2.0)))
    np.testing.assert_array_equal(ours(cfg, tmp_path, clip), theirs(wanted, tmp_path))


#: What cannot be done, or is not meant, and a word of the refusal.
REFUSED = {
    "reduced in the pipeline only": (dict(pipeline=steps(load=dict(reduce_zero_label=True))), "set it in the dataset"),
    "reduced in the dataset only": (dict(reduce_zero_label=True, pipeline=steps(load=dict(reduce_zero_label=False))),
                                    "set it in the dataset"),
    "masks resized": (dict(pipeline=steps(after=(RESIZE,))), "LoadAnnotations comes after"),
    "no masks": (dict(pipeline=[step for step in steps() if step["type"] != "LoadAnnotations"]), "LoadAnnotations"),
    "several versions": (dict(pipeline=[dict(type="LoadImageFromFile"), dict(
        type="TestTimeAug", transforms=[[FLIP], [dict(type="LoadAnnotations")], [dict(type="PackSegInputs")]])]),
        "TestTimeAug"),
    "no such transform": (dict(pipeline=steps(dict(type="Resise"))), "Resise"),
    "unknown ids": (dict(type="BaseSegDataset", metainfo=dict(classes=NAMES[:3])), r"id\(s\) \[3\]"),
    "classes of another dataset": (dict(metainfo=dict(classes=["sky", "moon"])), "moon"),
    "another wrapper": ({}, "MultiImageMix"),
    "two paddings": (dict(preprocessor=preprocess(test_cfg=dict(size=(90, 90), size_divisor=32))),
                     "SegDataPreProcessor does not take"),
    "four channels": (dict(pipeline=[dict(type="LoadImageFromFile", color_type="unchanged"), *steps()[1:]],
                           data_prefix=dict(img_path="alpha", seg_map_path="masks")), "does not take"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, data, clip, tmp_path):
    changes, words = REFUSED[name]
    cfg = config(data, **changes)
    if "wrapper" in name:
        cfg.test_dataloader.dataset = dict(
            type="MultiImageMixDataset", pipeline=[], dataset=config(data).test_dataloader.dataset
        )
    with pytest.raises(UserError, match=words) as refusal:
        ours(cfg, tmp_path, clip)
    assert "\n" not in str(refusal.value)


def test_metrics_and_model_settings_that_would_be_ignored(data, clip, tmp_path):
    cfg = config(data)
    cfg.test_evaluator = [dict(type="IoUMetric", ignore_index=0)]
    with pytest.raises(UserError, match="IoUMetric ignores 0, the dataset 255; give both the same"):
        ours(cfg, tmp_path, clip)
    cfg = config(data)
    cfg.model.test_cfg = dict(mode="slide", crop_size=(64, 64), stride=(32, 32))
    with pytest.raises(UserError, match=r"test_cfg .* slide_crop"):
        ours(cfg, tmp_path, clip)


def test_other_metrics_run_beside_ours(data, clip, tmp_path, capsys):
    """MMSegmentation's, whose scores have the same names, and ours by any name, which is not computed twice."""
    cfg = config(data)
    cfg.test_evaluator = [
        dict(type="mmseg.IoUMetric", iou_metrics=["mIoU", "mDice"]),
        dict(type="mmseg.ConfusionMetric"),
        dict(type=ConfusionMetric, ignore_index=255),
    ]
    intersection, prediction, truth = ours(cfg, tmp_path, clip)
    (dice,) = re.findall(r"other metrics of the config: .*mDice ([\d.]+)", capsys.readouterr().out)
    assert float(dice) == pytest.approx(100 * np.mean(2 * intersection / (prediction + truth)), abs=0.006)


def test_a_preprocessor_beside_the_model(data, clip, tmp_path):
    """MMEngine's runner gives it to a model that has none."""
    own = preprocess(bgr_to_rgb=False, test_cfg=dict(size_divisor=32))
    cfg = config(data, preprocessor=own)
    file = tmp_path / "cfg_drive.py"
    file.write_text(f"model = dict(type='ClearCLIPSegmentation', class_names={NAMES})\ndata_preprocessor = {own!r}\n"
                    f"test_dataloader = {cfg.test_dataloader.to_dict()!r}\n")  # fmt: skip
    np.testing.assert_array_equal(ours(load_config(file), tmp_path, clip), theirs(cfg, tmp_path))


def test_a_segmentor_of_one_s_own(data, clip, tmp_path):
    @MODELS.register_module()
    class Opposite(ClearCLIPSegmentation):
        def predict(self, inputs, data_samples=None):
            for sample in super().predict(inputs, data_samples):
                sample.pred_methods.data = len(NAMES) - 1 - sample.pred_methods.data
            return data_samples

    try:
        plain, other = (ours(config(data, model_type=kind), tmp_path / f"{kind}", clip)
                        for kind in ("ClearCLIPSegmentation", "Opposite"))  # fmt: skip
        np.testing.assert_array_equal(other[1], plain[1][::-1])
    finally:
        MODELS.module_dict.pop("Opposite")


TRANSFORMS = st.sampled_from([
    dict(type="Resize", scale=(50, 40), keep_ratio=True), dict(type="Resize", scale=(50, 40)),
    dict(type="Resize", scale_factor=1.3), dict(type="Resize", scale=33, interpolation="nearest"),
    FLIP, FLIP | dict(direction="vertical"), dict(type="Pad", size=(40, 64)),
    dict(type="RandomRotate", prob=0.0, degree=9.0), dict(type="CenterCrop", crop_size=24),
    dict(type="ResizeShortestEdge", scale=25, max_size=60),
    dict(type="ResizeToMultiple", size_divisor=16), dict(type="Normalize", mean=[1.0] * 3, std=[2.0] * 3),
    dict(type="AdjustGamma", gamma=1.4), dict(type="Rerange"), dict(type="RGB2Gray", out_channels=3),
])  # fmt: skip
# Few of these change the size, since the masks would not fit any more.
AFTER = st.sampled_from([FLIP, FLIP | dict(direction="vertical"), dict(type="AdjustGamma", gamma=0.7), RESIZE])
PADDING = st.sampled_from([None, dict(size=(90, 100)), dict(size_divisor=32), dict(size_divisor=7)])
DATASETS_DRAWN = st.fixed_dictionaries(
    {},
    optional=dict(
        metainfo=st.sampled_from(
            [dict(classes=NAMES[::-1]), dict(classes=["car", "tree"]), dict(classes=["road", "sky"])]
        ),
        type=st.sampled_from(["Drive", "mmseg.Drive", Drive]),
        reduce_zero_label=st.booleans(),
        ignore_index=st.sampled_from([255, 255, 1, 7]),
        ann_file=st.just("list.txt"),
        indices=st.integers(1, 3),
        data_prefix=st.sampled_from([dict(img_path="images", seg_map_path="reduced")]),
        serialize_data=st.booleans(),
        lazy_init=st.booleans(),
    ),
)


@settings(
    max_examples=30, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(
    before=st.lists(TRANSFORMS, max_size=2),
    after=st.lists(AFTER, max_size=1),
    load=st.fixed_dictionaries({}, optional=dict(reduce_zero_label=st.booleans(), imdecode_backend=st.just("cv2"))),
    padding=PADDING,
    batch_size=st.integers(1, 2),
    times=st.sampled_from([None, None, 2]),
    dataset=DATASETS_DRAWN,
)
def test_any_settings(before, after, load, padding, batch_size, times, dataset, data, clip, tmp_path_factory):
    """The same areas; or a refusal, where MMSegmentation stops, too, or counts ids that are no class as errors."""
    cfg = config(data, steps(*before, load=load, after=tuple(after)), preprocess(test_cfg=padding),
                 loader=dict(batch_size=batch_size), **dataset)  # fmt: skip
    if times:
        inner = cfg.test_dataloader.dataset.to_dict()
        cfg.test_dataloader.dataset = dict(type="RepeatDataset", times=times, dataset=inner)
    folder = tmp_path_factory.mktemp("any")
    try:
        found = ours(cfg, folder, clip)
    except UserError as refusal:
        unknown = "neither a class nor ignored" in str(refusal)
        if not unknown:
            with pytest.raises(Exception):  # noqa: B017 (whatever MMSegmentation raises)
                theirs(cfg, folder)
        return
    np.testing.assert_array_equal(found, theirs(cfg, folder))


def copied(data: Path, folder: Path) -> Path:
    return Path(shutil.copytree(data, folder / "copy"))


def test_names_that_are_no_utf_8(data, clip, tmp_path):
    root = copied(data, tmp_path)
    for folder in ("images", "masks"):
        (root / folder / "2.png").rename(os.fsdecode(os.fsencode(root / folder) + b"/caf\xe9.png"))
    cfg = config(root)
    same(cfg, tmp_path, clip)
    evaluate(cfg, tmp_path / "again", model=clip, hooks=[PictureHook(tmp_path / "shown")])
    assert b"caf\xe9.png" in [os.fsencode(path.name) for path in (tmp_path / "shown").iterdir()]


def test_images_beyond_pillow_s_limit(data, clip, tmp_path, monkeypatch):
    """OpenCV reads them, and their masks."""
    cfg = config(data)
    wanted = theirs(cfg, tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(data / "images" / "0.png")
    np.testing.assert_array_equal(ours(cfg, tmp_path, clip), wanted)


def test_a_home_folder_in_paths(data, clip, tmp_path, monkeypatch):
    wanted = theirs(config(data), tmp_path)
    monkeypatch.setenv("HOME", str(data.parent))
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    found = ours(config(Path("~") / data.name), tmp_path, clip)
    np.testing.assert_array_equal(found, wanted)


def test_postscript_is_not_opened(data, clip, tmp_path, monkeypatch):
    """Pillow would start Ghostscript for it."""

    def started(*_arguments, **_options):
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    for folder in ("images", "masks"):
        root = copied(data, tmp_path / folder)
        Image.new("L", (36, 30)).save(root / folder / "0.png", format="EPS")
        cfg = config(root, pipeline=[dict(type="LoadImageFromFile", imdecode_backend="pillow"), *steps()[1:]])
        with pytest.raises(UserError, match=rf"{folder}/0\.png cannot be read.* of a known kind"):
            ours(cfg, tmp_path, clip)


def test_more_classes_than_can_be_compared(data, clip, tmp_path):
    words = [f"class {k}" for k in range(70_000)]
    with pytest.raises(UserError, match="has 70,000 classes; at most 10,000"):
        ours(config(data, type="BaseSegDataset", metainfo=dict(classes=words)), tmp_path, clip)


def test_masks_of_0_and_255_for_two_classes(data, tmp_path):
    root = copied(data, tmp_path)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 1, 255, 0).astype(np.uint8)).save(path)
    two = config(root, type="BaseSegDataset", metainfo=dict(classes=["background", "lesion"]))
    (remark,) = quick_check(two)
    assert "class 1 (lesion) is never counted" in remark and "need 0 and 1" in remark


def test_more_than_255_classes_of_more(data, clip, tmp_path, monkeypatch):
    """MMSegmentation's mark for what is left out would be a class."""
    words = [f"class {k}" for k in range(300)]
    monkeypatch.setattr(Drive, "METAINFO", dict(classes=words, palette=[[0, 0, 0]] * 300))
    with pytest.raises(UserError, match="marks classes left out with 255, which is a class"):
        ours(config(data, ignore_index=65535, metainfo=dict(classes=words[:299])), tmp_path, clip)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (lambda root: (root / "images/1.png").rename(root / "images/1.PNG"), "1 images in .* rename them"),
        (lambda root: (root / "list.txt").write_text("3\n\n1\n"), "list.txt has a blank line: remove it"),
        (lambda root: (root / "list.txt").write_text("3.png\n1.png\n"), "names images with their suffix"),
        (lambda root: (root / "list.txt").write_text("\ufeff3\n1\n"), "without a byte order mark"),
        (lambda root: (root / "list.txt").write_bytes(b"caf\xe9\n"), "list.txt is not UTF-8 text"),
    ],
    ids=["mixed suffixes", "blank line", "suffixes in the list", "byte order mark", "Latin-1"],
)
def test_lists_and_suffixes(changes, words, data, tmp_path):
    root = copied(data, tmp_path)
    changes(root)
    options = {} if "rename" in words else dict(ann_file="list.txt")
    report = check_dataset(config(root, **options))
    assert not report.complete and re.search(words, report.problems[0])


def test_damaged_jpegs(data, clip, tmp_path, capfd):
    """libjpeg warns of the damage and fills in what it likes: such an image is not counted. Others are."""
    root = copied(data, tmp_path)
    rng = np.random.default_rng(5)
    for path in sorted((root / "images").glob("*.png")):
        image = Image.fromarray(rng.integers(0, 256, (30, 36, 3), dtype=np.uint8))
        image.save(path.with_suffix(".jpg"))
        path.unlink()
    cfg = config(root, img_suffix=".jpg")
    same(cfg, tmp_path, clip)
    whole = (root / "images/2.jpg").read_bytes()
    for place in range(700, len(whole) - 100, 20):
        (root / "images/2.jpg").write_bytes(whole[:place] + whole[place + 60 :])
        assert cv2.imread(str(root / "images/2.jpg")).shape == (30, 36, 3)
        if "Corrupt JPEG data" in capfd.readouterr().err:
            break
    else:
        pytest.fail("libjpeg never warned")
    with pytest.raises(UserError, match=r"images/2\.jpg cannot be read \(.*Corrupt JPEG data"):
        ours(cfg, tmp_path, clip)
    (found,) = evaluate(config(root, img_suffix=".jpg"), tmp_path / "rest", model=clip, on_error="skip", limit=2)
    assert found.images == 2
    assert "Corrupt" not in capfd.readouterr().err


@TRANSFORMS_REGISTRY.register_module()
class Killed(BaseTransform):
    """What the system does to a process that takes too much memory."""

    def transform(self, results):
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return results


def test_a_reading_process_that_is_killed(data, clip, tmp_path):
    cfg = config(data, pipeline=steps(dict(type="Killed")))
    with pytest.raises(UserError, match=r"reads images .* --workers"):
        evaluate(cfg, tmp_path, model=clip, workers=1)

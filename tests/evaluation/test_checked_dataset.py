"""MMSegmentation's settings mean here what they mean there: the areas of its Runner and IoUMetric, or a refusal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from colour_model import FLIP, NAMES, NORMALISE, RESIZE, Drive, config, copied, ours, preprocess, same, steps, theirs
from conftest import rows_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from layouts import make_layout
from mmcv.transforms import BaseTransform
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS as TRANSFORMS_REGISTRY
from numpy_scores import mean_iou
from PIL import Image
from quick_runs import config as config_path
from quick_runs import predict, quick

from clearclip import UserError
from clearclip.commands.eval import eval_command
from clearclip.evaluation.config import load_config
from clearclip.evaluation.run import evaluate

#: The fixtures ``clip``, a model that labels pixels by their colour, and ``data``.
pytest_plugins = ["colour_model"]
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


def test_a_home_folder_in_paths(data, clip, tmp_path, monkeypatch):
    wanted = theirs(config(data), tmp_path)
    monkeypatch.setenv("HOME", str(data.parent))
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    found = ours(config(Path("~") / data.name), tmp_path, clip)
    np.testing.assert_array_equal(found, wanted)


def test_more_than_255_classes_of_more(data, clip, tmp_path, monkeypatch):
    """MMSegmentation's mark for what is left out would be a class."""
    words = [f"class {k}" for k in range(300)]
    monkeypatch.setattr(Drive, "METAINFO", dict(classes=words, palette=[[0, 0, 0]] * 300))
    with pytest.raises(UserError, match="marks classes left out with 255, which is a class"):
        ours(config(data, ignore_index=65535, metainfo=dict(classes=words[:299])), tmp_path, clip)


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


def test_bad_images_stop_or_are_skipped(tmp_path, quick_name, capfd):
    made = make_layout("voc21", tmp_path, images=8)
    whole = made["images"][6].read_bytes()
    made["images"][6].write_bytes(whole[: len(whole) // 2])
    arguments = [
        "--config",
        config_path("voc21"),
        "--workdir",
        str(tmp_path / "w"),
        "--results",
        str(tmp_path / "r.xlsx"),
    ]
    arguments += ["--data-root", str(made["data_root"]), "--workers", "0", *quick(quick_name)]
    with pytest.raises(UserError, match=f"{made['stems'][6]}.*skip"):
        eval_command(arguments)
    assert capfd.readouterr().err.endswith("\n")  # the error has a line of its own below the progress bar
    assert not (tmp_path / "r.xlsx").exists()
    assert eval_command([*arguments[:4], "--on-error", "skip", *arguments[4:]]) == 0
    (row,) = rows_of(tmp_path / "r.xlsx")
    assert (row["images"], row["skipped"]) == (7, 1)
    keep = [0, 1, 2, 3, 4, 5, 7]
    predictions = predict("voc21", quick_name, [made["images"][index] for index in keep])
    assert row["mIoU"] == pytest.approx(mean_iou([made["labels"][i] for i in keep], predictions, 21), abs=1e-3)
    # Repaired, it is other data: refused, or computed again.
    made["images"][6].write_bytes(whole)
    with pytest.raises(UserError, match=r"--resume: the settings differ \(dataset\.images was"):
        eval_command([*arguments[:4], "--resume", *arguments[4:]])
    assert eval_command([*arguments[:4], "--resume", "auto", *arguments[4:]]) == 0
    row = rows_of(tmp_path / "r.xlsx")[-1]
    assert (row["images"], row["skipped"]) == (8, 0)


def test_a_bad_image_that_is_opened_first(tmp_path, quick_name):
    """Whether an image is among those that are looked at before the run changes nothing."""
    made = make_layout("voc21", tmp_path, images=3)
    made["images"][0].write_bytes(b"broken")
    arguments = [
        "--config",
        config_path("voc21"),
        "--workdir",
        str(tmp_path / "w"),
        "--results",
        str(tmp_path / "r.xlsx"),
    ]
    arguments += ["--data-root", str(made["data_root"]), "--workers", "0", *quick(quick_name)]
    with pytest.raises(UserError, match=f"{made['stems'][0]}.*--on-error skip"):
        eval_command(arguments)
    assert eval_command([*arguments[:4], "--on-error", "skip", *arguments[4:]]) == 0
    (row,) = rows_of(tmp_path / "r.xlsx")
    assert (row["images"], row["skipped"]) == (2, 1)

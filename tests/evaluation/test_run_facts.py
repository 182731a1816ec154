"""A run's fingerprint: where the confusion matrix differs it differs, and where only the spelling does it does not."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clearclip.commands.command_line import import_file
from clearclip.evaluation.loaded_model import LoadedModel
from clearclip.evaluation.run import evaluate
from clearclip.miniature import BENCHMARK, CLASSES
from clearclip.model_settings import ModelSettings
from clearclip.utils.fingerprint import digest

METHOD = """
from dataclasses import dataclass
import torch
from clearclip import METHODS, Method

def factor():
    return 1.0

@METHODS.register_module("{name}")
@dataclass(frozen=True)
class Own(Method):
    power: float = 1.0

    def __call__(self, blocks, x, context):
        y = blocks[-1].ln_1(x)
        v = blocks[-1].project(y, "v")
        return blocks[-1].merge(v.sign() * v.abs() ** self.power) * factor() + 0.3 * x
"""
CONFIG = """
_base_ = "{base}"
dataset_name = "few"
model = dict(
    _delete_=True, type="ClearCLIPSegmentation", model_name="local-dir:model", name_path="names.txt", slide_crop=64,
    slide_stride=32,
)
test_dataloader = dict(
    batch_size=2, num_workers=0,
    dataset=dict(
        type="MiniatureDataset", data_root="data", ann_file="list.txt",
        data_prefix=dict(img_path="images", seg_map_path="masks"),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
    ),
)
"""
ROOT = Path(__file__).resolve().parents[2]


def lay_out(folder: Path, model: Path) -> None:
    """A config with three images of 64 × 64 pixels, masks, a list, a names file, weights, and a method of one's own."""
    for kind, source in (("images", "images"), ("masks", "annotations")):
        (folder / "data" / kind).mkdir(parents=True)
        for number in (22, 47, 16):
            with Image.open(BENCHMARK / source / "val" / f"{number:04}.png") as image:
                image.crop((32, 32, 96, 96)).save(folder / "data" / kind / f"{number:04}.png")
    (folder / "data" / "list.txt").write_text("0022\n0047\n0016\n")
    (folder / "names.txt").write_text("\n".join(CLASSES))
    (folder / "config.py").write_text(CONFIG.format(base=ROOT / "config" / "base_config.py"))
    shutil.copytree(model, folder / "model")
    (folder / "own_method.py").write_text(METHOD)


def run(folder: Path, changes: dict | None = None, config: str = "config.py", method: str | None = None, **options):
    """Confusion counts, and the fingerprint."""
    before, name = Path.cwd(), None
    os.chdir(folder)
    try:
        if method is not None:
            name = f"own{abs(hash((str(folder), method)))}"
            (folder / f"{name}.py").write_text((folder / "own_method.py").read_text().replace("{name}", name))
            import_file(Path(f"{name}.py"))
            changes = {**(changes or {}), "model.method": {"type": name, **eval(method)}}
        (found,) = evaluate(config, folder / "work", overrides=changes, device="cpu", **options)
    finally:
        os.chdir(before)
        from clearclip import METHODS

        METHODS.pop(name, None)
        sys.modules.pop(name, None)
    facts = found.facts
    if name is not None:  # the registered name has to be another one each time
        named = ("label", "type", "source")
        facts = {**facts, "method": {key: value for key, value in facts["method"].items() if key not in named}}
        source = (folder / "own_method.py").read_text()
        assert found.facts["method"]["source"]
        facts["method"]["text"] = source
    return found.scores.confusion, digest(facts)


def change_pixel(path: Path, value: int | None = None) -> None:
    array = np.array(Image.open(path))
    array[20:40, 20:40] = (array[20:40, 20:40].astype(int) * 3 + 40) % 256 if value is None else value
    Image.fromarray(array).save(path)


def change_weights(folder: Path, name: str) -> None:
    path = folder / "model" / "open_clip_pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    state[name] = state[name] + 0.3 * state[name].roll(1, 0)
    torch.save(state, path)


def rewrite(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


DATASET, PIPELINE = "test_dataloader.dataset", "test_dataloader.dataset.pipeline"
STEPS = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
#: Overrides of a config that may change the counts.
SETTINGS: list[dict] = [
    *({"model.slide_crop": 32, "model.slide_stride": stride} for stride in (16, 32)),
    {"model.slide_crop": 0},
    *({"model.logit_scale": scale, "model.prob_thd": 0.2} for scale in (5, 40, 50.0)),
    *({"model.prob_thd": thd} for thd in (0.1, 0.3, 0.9)),
    {"model.post": "pamr"},
    *({"model.method": {"type": "ClearCLIP", "attention": one}} for one in ("kk", "vv", "identity", "qk")),
    {"model.method": {"type": "ClearCLIP", "residual": True}},
    {"model.method": {"type": "ClearCLIP", "ffn": True}},
    *({"model.method": {"type": "ClearCLIP", "residual": True, "alpha": alpha}} for alpha in (0.5, 2)),
    *({"model.model_type": one} for one in ("SCLIP", "MaskCLIP")),
    {"model.model_type": "SCLIP", "model.ignore_residual": False},
    {"model.quick_gelu": False},
    {"model.class_names": [*CLASSES[1:], "sky"], "model.name_path": None},
    *({f"{DATASET}.ignore_index": one} for one in (0, 3, 11)),
    {f"{DATASET}.reduce_zero_label": True},
    *({f"{DATASET}.indices": one} for one in (1, 2)),
    {f"{DATASET}.data_prefix": dict(img_path="images", seg_map_path="images2")},
    {f"{DATASET}.metainfo": dict(classes=(*CLASSES[1:], "sky"))},
    *({f"{PIPELINE}.0.{key}": value} for key, value in (("color_type", "grayscale"), ("imdecode_backend", "pillow"))),
    *({PIPELINE: [STEPS[0], dict(type="Resize", scale=(side, side)), *STEPS[1:]]} for side in (40, 96)),
    {PIPELINE: [STEPS[0], dict(type="RandomFlip", prob=1.0), *STEPS[1:]]},
    {PIPELINE: [STEPS[0], dict(type="PhotoMetricDistortion", brightness_delta=60), *STEPS[1:]]},
    *(
        {"model.data_preprocessor": dict(type="ImagePreprocessor", mean=mean, std=std, bgr_to_rgb=swap)}
        for mean, std, swap in (([0] * 3, [255] * 3, True), ([122] * 3, [68] * 3, False))
    ),
    {"test_dataloader.sampler.shuffle": True},
    {"test_dataloader.batch_size": 3},
    {"test_cfg.fp16": False},
]  # fmt: skip
#: Changes of files.
FILES: list[Callable[[Path], None]] = [
    *(lambda folder, n=n: change_pixel(folder / "data" / "images" / f"{n:04}.png") for n in (22, 16)),
    *(lambda folder, n=n: change_pixel(folder / "data" / "masks" / f"{n:04}.png", n % 14) for n in (22, 47)),
    lambda folder: (folder / "data" / "list.txt").write_text("0022\n0016\n"),
    *(
        lambda folder, name=name: change_weights(folder, name)
        for name in ("visual.proj", "visual.conv1.weight", "positional_embedding", "text_projection")
    ),
    lambda folder: rewrite(folder / "names.txt", "sky\n", "house, sky\n"),
    lambda folder: rewrite(folder / "names.txt", "sky\ncloud\n", "cloud\nsky\n"),
    lambda folder: rewrite(folder / "model" / "open_clip_config.json", '"quick_gelu": true', '"quick_gelu": false'),
    lambda folder: rewrite(folder / "model" / "open_clip_config.json", '"heads": 2', '"heads": 4'),
]
#: Changes of a method of one's own: its options, its source, a helper in its file.
OWN: list[Callable[[Path], str]] = [
    lambda folder: "{'power': 3.0}",
    lambda folder: rewrite(folder / "own_method.py", "0.3 * x", "-0.9 * x") or "{}",
    lambda folder: rewrite(folder / "own_method.py", "return 1.0", "return -4.0") or "{}",
    lambda folder: rewrite(folder / "own_method.py", 'project(y, "v")', 'project(y, "k")') or "{}",
]


def spell(folder: Path, kind: str) -> dict:
    """Another spelling of the same."""
    if kind == "link":
        (folder / "linked").symlink_to(folder / "data")
    if kind == "copy":
        shutil.copytree(folder / "data", folder / "elsewhere" / "copied")
        os.utime(folder / "elsewhere" / "copied" / "images" / "0022.png", (1, 1))
    return {
        "dots": {f"{DATASET}.data_root": "./data/../data", "model.name_path": "./names.txt"},
        "absolute": {f"{DATASET}.data_root": str(folder / "data"), "model.model_name": f"local-dir:{folder / 'model'}"},
        "link": {f"{DATASET}.data_root": "linked"},
        "copy": {f"{DATASET}.data_root": "elsewhere/copied"},
        "defaults": {f"{PIPELINE}.0.color_type": "color", f"{DATASET}.reduce_zero_label": False, "model.post": None},
        "scopes": {f"{PIPELINE}.1.type": "mmseg.LoadAnnotations", f"{DATASET}.type": "mmseg.MiniatureDataset"},
        "whole numbers": {"model.logit_scale": 50, "model.prob_thd": 0},
        "method": {"model.method": "ClearCLIP"},
        "words": {"model.name_path": None, "model.class_names": list(CLASSES)},
        "files read": {"test_dataloader.num_workers": 1, "test_dataloader.pin_memory": False},
        "list": {
            f"{DATASET}.ann_file": "./list.txt",
            f"{DATASET}.data_prefix": dict(img_path="images/", seg_map_path="./masks"),
        },
    }[kind]  # fmt: skip


SPELLINGS = ("dots", "absolute", "link", "copy", "defaults", "scopes", "whole numbers", "method", "words", "files read",
             "list")  # fmt: skip
changes = st.one_of(
    st.sampled_from(SETTINGS).map(lambda one: ("setting", one)),
    st.sampled_from(FILES).map(lambda one: ("file", one)),
    st.sampled_from(OWN).map(lambda one: ("own", one)),
    st.sampled_from(SPELLINGS).map(lambda one: ("spelling", one)),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory, quick_folder):
    folder = tmp_path_factory.mktemp("base")
    lay_out(folder, quick_folder)
    # Masks of other classes, for a config that names another folder.
    shutil.copytree(folder / "data" / "masks", folder / "data" / "images2")
    for path in (folder / "data" / "images2").iterdir():
        change_pixel(path, 5)
    settings_of_model = ModelSettings.from_options({"model_name": f"local-dir:{folder / 'model'}", "device": "cpu"})
    return folder, run(folder), run(folder, method="{}"), LoadedModel.load(settings_of_model)


@settings(
    max_examples=int(os.environ.get("CLEARCLIP_CHANGES", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(change=changes)
def test_any_single_change(base, change):
    """Those that are drawn are other ones each time; ``CLEARCLIP_CHANGES=200`` draws all of them."""
    origin, plain_run, own_run, loaded = base
    kind, what = change
    confusion, fingerprint = own_run if kind == "own" else plain_run
    if kind == "setting":
        # The folder stays as it is, and with it the model, but for settings that say how it is loaded.
        model = None if "model.quick_gelu" in what else loaded
        now, changed = run(origin, what, model=model)
    else:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "copy"
            shutil.copytree(origin, folder, ignore=shutil.ignore_patterns("work", "own?*.py*", "__pycache__"))
            shutil.copy(origin / "own_method.py", folder)
            if kind == "file":
                what(folder)
                now, changed = run(folder)
            elif kind == "own":
                now, changed = run(folder, method=what(folder))
            else:
                now, changed = run(folder, spell(folder, what))
    if kind == "spelling":
        assert np.array_equal(now, confusion)
        assert changed == fingerprint, what
    elif not np.array_equal(now, confusion):
        assert changed != fingerprint, what


def test_most_changes_change_the_counts(base):
    """Else the property would say nothing."""
    folder, (confusion, _), _, loaded = base
    different = [not np.array_equal(run(folder, one, model=loaded)[0], confusion) for one in SETTINGS[::4]]
    assert sum(different) > 0.6 * len(different)


CONCATENATED = """
_base_ = "config.py"
test_dataloader = dict(dataset=dict(_delete_=True, type="ConcatDataset", ignore_keys={keys}, datasets=[{datasets}]))
"""
KEYS = ["classes", "palette", "label_map", "reduce_zero_label"]  # in which the datasets may differ
MEMBER = """dict(
    type="MiniatureDataset", data_root="data", ann_file={list!r}, reduce_zero_label={reduce},
    data_prefix=dict(img_path="images", seg_map_path="masks"), {more}
    pipeline=[dict(type="LoadImageFromFile"), {resize}dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
)"""


def concatenated(folder: Path, first: dict, second: dict):
    """Counts and fingerprint of two datasets one after the other."""
    members = []
    for number, member in enumerate((first, second)):
        (folder / "data" / f"list{number}.txt").write_text("\n".join(member.pop("images")))
        values = {"reduce": False, "more": "", "resize": "", **member}
        members.append(MEMBER.format(list=f"list{number}.txt", **values))
    (folder / "concatenated.py").write_text(CONCATENATED.format(keys=KEYS, datasets=", ".join(members)))
    return run(folder, config="concatenated.py")


def test_parts_of_a_concatenated_dataset(tmp_path, quick_folder):
    """Where the second one begins, which one reduces labels, and which classes the second one means."""
    lay_out(tmp_path, quick_folder)
    names = ["0022", "0047", "0016"]
    small = {"resize": "dict(type='Resize', scale=(40, 40)), "}
    classes = [*CLASSES[1:], CLASSES[0]]
    other_classes = {"more": f"metainfo=dict(classes={classes}), "}
    results = {
        "plain": concatenated(tmp_path, {"images": names[:1]}, {"images": names[1:]}),
        "second from 1": concatenated(tmp_path, {"images": names[:1]}, {"images": names[1:], **small}),
        "second from 2": concatenated(tmp_path, {"images": names[:2]}, {"images": names[2:], **small}),
        "first reduces": concatenated(tmp_path, {"images": names[:1], "reduce": True}, {"images": names[1:]}),
        "second reduces": concatenated(tmp_path, {"images": names[:1]}, {"images": names[1:], "reduce": True}),
        "second's classes": concatenated(tmp_path, {"images": names[:1]}, {"images": names[1:], **other_classes}),
    }
    for name, (confusion, fingerprint) in results.items():
        for other_name, (other_confusion, other_fingerprint) in results.items():
            if name != other_name:
                assert not np.array_equal(confusion, other_confusion), (name, other_name)
                assert fingerprint != other_fingerprint, (name, other_name)

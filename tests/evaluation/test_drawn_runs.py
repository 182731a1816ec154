"""A generator of runs that are allowed to fill their cell, and of everything else.

``CLEARCLIP_RUNS=2000 pytest tests/evaluation/test_drawn_runs.py`` draws 2,000 of them, a quarter of them allowed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import random
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from edited_record import EditedRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.registry import DATA_SAMPLERS, HOOKS, LOOPS
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from PIL import Image
from test_published_run import ALLOWED, BASE, DATASET, LINES, PIPELINE, SETTINGS, reasons, registered

from clearclip import METHODS, UserError
from clearclip.evaluation import published_run
from clearclip.evaluation.loaded_model import LoadedModel
from clearclip.miniature import BENCHMARK, CLASSES
from clearclip.model_settings import ModelSettings
from clearclip.utils import installed_code
from clearclip.windows import POST_PROCESSINGS

DRAWS = int(os.environ.get("CLEARCLIP_RUNS", "200"))
PROPERTY = dict(deadline=None, suppress_health_check=list(HealthCheck), database=None)
METHOD_NAMES = ["CLIP", "ClearCLIP", "MaskCLIP", "SCLIP + ClearCLIP", "NACLIP", "GEM", "SC-CLIP"]


@dataclass(frozen=True, repr=False)
class Workplace:
    """What the draws share, since it is left as it was: a loaded model, and a copy of the scenes."""

    loaded: LoadedModel
    scenes: Path
    folder: Path


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Workplace:
    folder = tmp_path_factory.mktemp("drawn")
    scenes = shutil.copytree(BENCHMARK, folder / "scenes")
    loaded = LoadedModel.load(ModelSettings.from_options({"clip_type": "Miniature", "device": "cpu"}))
    return Workplace(loaded, Path(scenes), folder)


allowed_runs = st.tuples(
    st.lists(st.sampled_from(sorted(set(ALLOWED) - {"its own activation"})), max_size=3, unique=True),
    st.sampled_from(METHOD_NAMES),
)


@settings(max_examples=DRAWS // 4, **PROPERTY)
@given(run=allowed_runs)
def test_any_allowed_run_fills_its_cell(run, workplace):
    names, method = run
    overrides = {key: value for name in names for key, value in ALLOWED[name].items()}
    # Options of a step stand in its dict, so that the last of them alone is drawn.
    if {"local files", "defaults", "scopes"}.intersection(names):
        overrides = ALLOWED[names[0]]
    assert reasons(workplace.loaded, overrides=overrides, methods=[method]) == []


# Each draws one run from a random generator, and gives the reasons why it fills no cell.


def a_setting(rng: random.Random, place: Workplace) -> list[str]:
    of_weights = {"activation", "normalisation", "random weights"}
    name = rng.choice(sorted(set(SETTINGS) - of_weights))
    return reasons(place.loaded, overrides=SETTINGS[name][0])


def an_option_of_the_model(rng: random.Random, place: Workplace) -> list[str]:
    shuffled = rng.sample(CLASSES, len(CLASSES))
    options = {
        "prob_thd": rng.uniform(0.001, 1),
        "area_thd": rng.uniform(0.001, 1),
        "logit_scale": rng.choice([rng.uniform(0, 49), rng.uniform(51, 200)]),
        "slide_stride": rng.choice([8, 16, 31, 33, 48, 64]),
        "slide_crop": rng.choice([0, 32, 72, 96, 128]),
        "softmax": False,
        "post": rng.choice([*POST_PROCESSINGS, {"type": "pamr", "iterations": 3}]),
        "windows_joined_by": "probabilities",
        "whole_image_resize": "twice",
        "incomplete_windows": rng.choice(["stretched", "cut", "extended"]),
        "templates": rng.choice(["tips9", "one"]),
    }
    name = rng.choice([*options, "class_names"])
    if name == "class_names":
        return reasons(place.loaded, overrides={"model.class_names": shuffled, "model.name_path": None})
    return reasons(place.loaded, overrides={f"model.{name}": options[name]})


def a_dataset_option(rng: random.Random, place: Workplace) -> list[str]:
    order = list(CLASSES)
    while order == list(CLASSES):
        rng.shuffle(order)
    option = rng.choice(
        [
            ("ignore_index", rng.randrange(14)),
            ("reduce_zero_label", True),
            ("metainfo", dict(classes=order)),
            ("indices", rng.randrange(1, 199)),
            ("data_prefix", dict(img_path="images/val", seg_map_path="images/val")),
        ]
    )
    return reasons(place.loaded, overrides={f"{DATASET}.{option[0]}": option[1]})


def a_step(rng: random.Random, place: Workplace) -> list[str]:
    side = rng.choice([64, 96, 160])
    step = rng.choice(
        [
            dict(type="Resize", scale=(side, side), keep_ratio=rng.random() < 0.5),
            dict(type="RandomFlip", prob=rng.uniform(0.01, 1)),
            dict(type="RandomCrop", crop_size=(side, side)),
            dict(type="PhotoMetricDistortion"),
            dict(type="CLAHE"),
            dict(type="AdjustGamma", gamma=rng.uniform(0.5, 0.9)),
            dict(type="Rerange"),
        ]
    )
    steps = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
    steps.insert(rng.choice([1, 2]), step)
    return reasons(place.loaded, overrides={PIPELINE: steps})


def fewer_images(rng: random.Random, place: Workplace) -> list[str]:
    return reasons(place.loaded, limit=rng.randrange(1, 200))


def an_import(rng: random.Random, place: Workplace) -> list[str]:
    file = place.folder / f"of_nobody_{rng.randrange(10)}" / rng.choice(["os.py", "torch.py", "mine.py"])
    return reasons(place.loaded, imports=[file])


def a_config_with_code(rng: random.Random, place: Workplace) -> list[str]:
    lines = sorted(line for line, is_data in LINES.items() if not is_data and "exec" not in line and "open" not in line)
    config = place.folder / "cfg_with_code.py"
    config.write_text(f"_base_ = {str(BASE)!r}\n{rng.choice(lines)}\n")
    return reasons(place.loaded, config=config)


def a_registered_class(rng: random.Random, place: Workplace) -> list[str]:
    """A class of one's own under a name that the config has."""
    registry, name = rng.choice(
        [
            (LOOPS, "TestLoop"),
            (HOOKS, "DistSamplerSeedHook"),
            (TRANSFORMS, "LoadImageFromFile"),
            (TRANSFORMS, "LoadAnnotations"),
            (TRANSFORMS, "PackSegInputs"),
            (DATASETS, "MiniatureDataset"),
            (DATA_SAMPLERS, "DefaultSampler"),
            (MODELS, "ClearCLIPSegmentation"),
        ]
    )
    with registered(registry, name, registry.get(name)):
        return reasons(place.loaded)


def a_method_registered_anew(rng: random.Random, place: Workplace) -> list[str]:
    registry = rng.choice([METHODS, POST_PROCESSINGS])
    name = rng.choice(sorted(name for name, member in registry.items() if isinstance(member, type)))
    another = type(name, (registry[name],), {"__module__": registry[name].__module__})
    with mock.patch.dict(registry, {name: another}):
        return reasons(place.loaded, methods=["CLIP"])


#: What is called while reasons are found: in its place there could be no answer at all.
UNTOUCHED = ("clearclip.utils.replaced_code", "clearclip.utils.installed_code", "clearclip.evaluation.published_run")


def code_objects() -> list[tuple[Any, str]]:
    """Every function of the packages that compute numbers: what holds it, and its name there."""
    holders: list[Any] = []
    for name, module in sorted(sys.modules.items()):
        package = name.partition(".")[0]
        if package in ("clearclip", "open_clip", "timm", "mmengine", "mmcv", "mmseg") and name not in UNTOUCHED:
            holders.append(module)
            holders += [
                member for member in vars(module).values() if isinstance(member, type) and member.__module__ == name
            ]
    return [
        (holder, name)
        for holder in holders
        for name, member in vars(holder).items()
        if isinstance(member, types.FunctionType) and member.__module__ not in UNTOUCHED
    ]


CODE = code_objects()


def replacement(*arguments, **options):
    """In the place of a function; never called."""


@contextlib.contextmanager
def other_instructions(function: types.FunctionType) -> Iterator[None]:
    code = function.__code__
    function.__code__ = replacement.__code__
    try:
        yield
    finally:
        function.__code__ = code


def a_patched_function(rng: random.Random, place: Workplace) -> list[str]:
    """Another function in its place, other instructions in it, or other defaults."""
    holder, name = rng.choice(CODE)
    function = vars(holder)[name]
    patches: list[Callable[[], Any]] = [lambda: mock.patch.object(holder, name, replacement)]
    # What the defaults were is not known of modules that other tests of this process have imported since.
    if any(function is imported for _, imported, _ in published_run._IMPORTED_CODE._functions):
        patches.append(lambda: mock.patch.object(function, "__defaults__", (1,)))
    if not function.__code__.co_freevars:
        patches.append(lambda: other_instructions(function))
    with rng.choice(patches)():
        return list(published_run._program())


def a_changed_constant(rng: random.Random, place: Workplace) -> list[str]:
    candidates = [
        (module, name)
        for module_name, module in sorted(sys.modules.items())
        if module_name.startswith("clearclip.") and module_name not in UNTOUCHED
        for name, value in vars(module).items()
        if type(value) in (int, float, str, tuple) and value and "__" not in name
        # Nor what the constants were of modules that other tests have imported since.
        if f"{module_name}.{name}" in published_run._IMPORTED_CODE._constants
    ]
    module, name = rng.choice(candidates)
    value = getattr(module, name)
    with mock.patch.object(module, name, value * 2 if type(value) is not tuple else value[1:]):
        return list(published_run._program())


def a_changed_weight(rng: random.Random, place: Workplace) -> list[str]:
    """Any number of any tensor of the model."""
    tensors = [tensor for tensor in place.loaded.model.parameters() if tensor.numel()]
    weights = rng.choice(tensors).data.flatten()
    position = rng.randrange(len(weights))
    former = weights[position].clone()
    weights[position] += rng.choice([1.0, -1e-3])
    try:
        return list(published_run._weights(place.loaded))
    finally:
        weights[position] = former


def a_hook_of_pytorch(rng: random.Random, place: Workplace) -> list[str]:
    """On any module of the model, on all modules, or a function in the place of one of its own."""
    module = rng.choice(list(place.loaded.model.modules()))
    register = rng.choice(
        [
            module.register_forward_hook,
            module.register_forward_pre_hook,
            torch.nn.modules.module.register_module_forward_hook,
            torch.nn.modules.module.register_module_forward_pre_hook,
            None,
        ]
    )
    if register is None:
        with mock.patch.dict(vars(module), {"forward": replacement}):
            return reasons(place.loaded)
    handle = register(lambda *_: None)
    try:
        return reasons(place.loaded)
    finally:
        handle.remove()


@contextlib.contextmanager
def fresh_records() -> Iterator[None]:
    """What is known of pip's records is found out anew, inside and afterwards."""
    installed_code.changed_packages.cache_clear()
    try:
        yield
    finally:
        installed_code.changed_packages.cache_clear()


def an_edited_package(rng: random.Random, place: Workplace) -> list[str]:
    """A file of a package is not what pip recorded: its hash is another one, or the file is not there."""
    name = rng.choice(sorted(installed_code.package_versions().keys() & installed_code.COMPARED_PACKAGES.keys()))
    distribution = importlib.metadata.distribution
    lines = (distribution(name).read_text("RECORD") or "").splitlines()
    number = rng.choice([number for number, line in enumerate(lines) if line.partition(",")[0].endswith(".py")])
    path, recorded_hash, size = lines[number].rsplit(",", 2)
    edited_hash = recorded_hash[:-1] + ("A" if recorded_hash[-1] != "A" else "B")
    lines[number] = rng.choice([f"{path},{edited_hash},{size}", f"{path[:-3]}_gone.py,{recorded_hash},{size}"])
    edited = EditedRecord(distribution(name), lambda _: "\n".join(lines))
    with (
        fresh_records(),
        mock.patch.object(
            importlib.metadata, "distribution", lambda package: edited if package == name else distribution(package)
        ),
    ):
        return list(published_run._program())


def a_changed_file(rng: random.Random, place: Workplace) -> list[str]:
    """A pixel of an image or a mask, or a file that is not there."""
    path = rng.choice(sorted(place.scenes.rglob("*.png")))
    content = path.read_bytes()
    try:
        if rng.random() < 0.3:
            for scene in place.scenes.rglob(path.name):  # an image and its mask
                scene.rename(scene.with_suffix(".away"))
        else:
            pixels = np.array(Image.open(path))
            pixels[rng.randrange(128), rng.randrange(128)] ^= 1
            Image.fromarray(pixels).save(path)
        return reasons(place.loaded, data_root=str(place.scenes))
    finally:
        for scene in place.scenes.rglob("*.away"):
            scene.rename(scene.with_suffix(".png"))
        path.write_bytes(content)


def another_model(rng: random.Random, place: Workplace) -> list[str]:
    """The same weights in an object that somebody else has had."""
    return reasons(place.loaded.model)


KINDS = (
    a_setting, an_option_of_the_model, a_dataset_option, a_step, fewer_images, an_import, a_config_with_code,
    a_registered_class, a_method_registered_anew, a_patched_function, a_changed_constant, a_changed_weight,
    a_hook_of_pytorch, an_edited_package, a_changed_file, another_model,
)  # fmt: skip


@settings(max_examples=DRAWS - DRAWS // 4, **PROPERTY)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10**9))
def test_no_other_run_fills_a_cell(kind, seed, workplace):
    try:
        reasons_of_run = kind(random.Random(seed), workplace)
    except UserError as error:  # refused, so that nothing is recorded
        reasons_of_run = [str(error)]
    assert reasons_of_run


def test_the_workplace_is_left_as_it_was(workplace):
    """Else a draw could have its reason from the one before."""
    assert reasons(workplace.loaded) == []
    assert reasons(workplace.loaded, data_root=str(workplace.scenes)) == []

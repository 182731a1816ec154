"""What a published number is made of. A run may fill a cell of a published table if

1. the program is a released one, unpatched, on tested versions of its packages, as pip installed them;
2. no code of the user's own took part: none imported, none in the config, every object that runs is ours or
   MMSegmentation's;
3. the images and masks are those of a bundled config, all of them;
4. the weights are a table's, with the activation and normalisation that belong to them, unchanged since they were read;
5. the settings are those of a published protocol, for one of our methods; one of the user's own has a row of its own.

Each has a function below. Everything else is a run like any other: recorded and listed, with the sentences that are
given here. An interpreter that was patched from outside is trusted (SECURITY.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import CONFIGS, dataset_name, load_config
from clearclip.evaluation.config_code import config_files, has_code
from clearclip.evaluation.datasets import entries, plain_datasets, plain_settings
from clearclip.evaluation.loaded_model import LoadedModel
from clearclip.evaluation.own_methods import is_own_method
from clearclip.evaluation.prepared_run import PreparedRun
from clearclip.evaluation.run_facts import USUAL_PARTS
from clearclip.methods import METHODS, Method
from clearclip.results.matching import PUBLISHED_ORIGINS
from clearclip.results.protocols import difference_texts, nearest_protocol
from clearclip.results.table_definitions import tables
from clearclip.utils.installed_code import (
    TESTED_VERSIONS,
    changed_packages,
    is_recorded,
    is_released,
    package_versions,
)
from clearclip.utils.replaced_code import ImportedCode
from clearclip.windows import POST_PROCESSINGS

#: Taken before any config or file of the user's is executed.
_IMPORTED_CODE = ImportedCode()
_RELEASED_METHODS, _RELEASED_POST_PROCESSINGS = dict(METHODS), dict(POST_PROCESSINGS)
#: What takes part beside the parts that a config may name.
_OWN_PARTS = {
    "BatchSampler", "CheckedDataset", "FrozenModelWrapper", "GroupStopHook", "JournaledEvaluator", "PictureHook",
    "ProgressHook",
}  # fmt: skip
_MODULES_OF_CONFIGS = ("clearclip.evaluation", "mmseg", "mmengine", "mmcv")


def not_published_because(run: PreparedRun) -> list[list[str]]:
    """For each method of a run why its result fills no published cell, in sentences; an empty list where it may."""
    # What is true of all methods is found out once.
    common = [*_program(), *_data(run), *_weights(run.loaded)]
    own_code = list(_own_code(run))
    reasons_by_method = []
    for method in run.methods:
        reasons = common + list(_protocol(run, method))
        # A method of the user's own has a row of its own, and that it is the user's is said there already.
        if not is_own_method(method):
            reasons += own_code
        reasons_by_method.append(list(dict.fromkeys(reasons)))
    return reasons_by_method


def _program() -> Iterator[str]:
    """1. The source, the packages, and their code in memory."""
    if not is_released():
        yield "the source of ClearCLIP is not a released one"
    for name, version in package_versions().items():
        if version not in TESTED_VERSIONS[name]:
            yield f"{name} {version} is not among the tested versions ({', '.join(TESTED_VERSIONS[name])})"
    # Which of them is loaded depends on the order in which they were installed.
    if sum(name.startswith("opencv") for name in package_versions()) > 1:
        yield "several builds of OpenCV are installed over each other"
    for name in changed_packages():
        yield f"the files of {name} are not those that pip installed"
    replaced = _IMPORTED_CODE.replaced()
    if replaced:
        yield f"code was replaced while the program ran: {', '.join(replaced[:3])}"
    if torch.nn.modules.module._has_any_global_hook():
        yield "all modules have hooks of PyTorch"


def _own_code(run: PreparedRun) -> Iterator[str]:
    """2. Code that was imported or registered, the config, and the classes of all objects."""
    has_released_methods = _RELEASED_METHODS.items() <= METHODS.items()
    if not (has_released_methods and _RELEASED_POST_PROCESSINGS.items() <= POST_PROCESSINGS.items()):
        yield "a released method or post-processing was registered anew"
    for path in run.options.imports:
        yield f"own code was imported: {Path(path).name}"
    for name in (run.cfg.get("custom_imports") or {}).get("imports") or ():
        if not str(name).startswith(_MODULES_OF_CONFIGS):
            yield f"own code was imported by the config: {name}"
    for path in config_files(run.cfg):
        if has_code(path):
            yield f"the config {path.name} has code of its own; settings alone are data"
    if run.facts["other"]:
        yield f"the config changes how the evaluation runs: {', '.join(run.facts['other'])}"
    runner_components = list(_runner_components(run.runner))
    for component in runner_components:
        if type(component).__name__ not in USUAL_PARTS | _OWN_PARTS:
            yield f"{type(component).__name__} is no part of a published evaluation"
    for component in [*_model_components(run), *runner_components]:
        yield from _foreign_code(component)


def _model_components(run: PreparedRun) -> Iterator[Any]:
    """The objects that make labels of files."""
    # The segmentor holds the model; what it does with images and labels counts as well.
    yield from dict.fromkeys([*run.segmentor.modules(), *run.loaded.model.modules()])
    yield from filter(None, (run.loaded.model.text_encoder, run.loaded.settings.chosen_post_processing))
    for dataset in plain_datasets(run.dataset.dataset):
        yield from (dataset, *dataset.pipeline.transforms)


def _runner_components(runner: Runner) -> Iterator[Any]:
    """The objects of MMEngine's runner."""
    loop = runner.test_loop
    yield from (loop, loop.dataloader.dataset, loop.dataloader.sampler, loop.dataloader.batch_sampler)
    yield from (loop.evaluator, *loop.evaluator.metrics, *runner.hooks, runner.model)


def _foreign_code(component: Any) -> Iterator[str]:
    """By what an object computes something else than its file says."""
    name = type(component).__name__
    # The class that runs is compared, not its name.
    if not is_recorded(type(component)):
        yield f"{name} is neither ClearCLIP's nor MMSegmentation's"
    attributes = getattr(component, "__dict__", {})
    functions = {attribute for attribute, value in attributes.items() if callable(value)}
    if not functions.isdisjoint(dir(type(component))):
        yield f"a function of {name} was replaced"
    if getattr(component, "_forward_hooks", None) or getattr(component, "_forward_pre_hooks", None):
        yield f"{name} has hooks of PyTorch"


def _data(run: PreparedRun) -> Iterator[str]:
    """3. Images and masks, compared with those that the bundled config names in the same folder.

    Without a bundled config no protocol fits, which 5. says. How many images there are, and their bytes where these are
    known, are among the settings that 5. compares.
    """
    bundled_config = CONFIGS / f"cfg_{dataset_name(run.cfg)}.py"
    if not bundled_config.is_file():
        return
    bundled = load_config(bundled_config).test_dataloader.dataset
    bundled.data_root = plain_settings(run.cfg.test_dataloader.dataset)[0]["data_root"]
    try:
        published_entries = _entries(CheckedDataset(bundled))
    except Exception:  # whatever MMSegmentation raises where a folder is laid out in another way
        published_entries = None
    if published_entries != _entries(run.dataset):
        yield "images, masks or the meaning of their ids are not those of the bundled config"


def _entries(dataset: CheckedDataset) -> list[Any]:
    """How ids become labels, and the image and mask of every entry."""
    rules = [(type(member), member.label_map, member.reduce_zero_label) for member in plain_datasets(dataset.dataset)]
    files = [(Path(info["img_path"]), Path(info["seg_map_path"])) for _, info in entries(dataset.dataset)]
    return [rules, files]


def _weights(loaded: LoadedModel) -> Iterator[str]:
    """4. The weights."""
    if loaded.facts["origin"] not in PUBLISHED_ORIGINS:
        yield f"the weights are not published ones ({loaded.facts['origin']})"
    elif not loaded.facts["rows"]:
        yield "activation or normalisation are not those that belong to the weights"
    if loaded.changed():
        yield "the model was changed after its weights were read"


def _protocol(run: PreparedRun, method: Method) -> Iterator[str]:
    """5. In what the settings differ from the nearest of the protocols of the dataset."""
    dataset = dataset_name(run.cfg)
    # Vanilla CLIP was published with a threshold of its own on VOC21.
    rows = [row for table in tables().values() for row in table.rows if row.label == method.label]
    row_settings = [{}, *(row.settings_for(dataset) for row in rows)]
    nearest = nearest_protocol(run.facts, row_settings)
    if nearest is None:
        yield f"no published protocol is for {dataset}"
    else:
        yield from difference_texts(*nearest)

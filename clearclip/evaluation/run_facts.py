"""What a run is made of, as plain data, before its first image.

Two runs with equal facts give equal numbers: an interrupted run is resumed, and a result found again, where the hash of
the facts is the same. They describe what a config builds, whatever its spelling. Whether a run may fill a cell of a
published table is another question (:mod:`clearclip.evaluation.published_run`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import mmengine.fileio
import torch
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import MODELS

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import class_words, dataset_name
from clearclip.evaluation.datasets import entries, plain_datasets
from clearclip.evaluation.image_loading import images_read_otherwise
from clearclip.evaluation.mask_loading import LoadLabels
from clearclip.evaluation.own_code import own_code_facts
from clearclip.evaluation.own_methods import nested_methods
from clearclip.evaluation.weight_facts import second_encoder_facts
from clearclip.methods import Method
from clearclip.model_settings import ModelSettings
from clearclip.utils.fingerprint import digest, hash_file, hash_files
from clearclip.utils.installed_code import NUMERICS, is_recorded, is_released, package_versions, source_digest
from clearclip.utils.plain_data import plain_data

#: Classes that a config may name for its runner, which change how fast it runs, what is printed and what is drawn.
USUAL_PARTS = {
    "CheckpointHook", "ConfusionMetric", "DefaultSampler", "DistSamplerSeedHook", "IoUMetric", "IterTimerHook",
    "LoggerHook", "ParamSchedulerHook", "RuntimeInfoHook", "SegVisualizationHook", "TestLoop", "pseudo_collate",
}  # fmt: skip
#: Their options that change numbers all the same.
_NUMERIC_OPTIONS = ("ignore_index", "fp16", "shuffle")
#: Options of a loader that have facts of their own, or change its speed only.
_OF_LOADING = ("dataset", "batch_size", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "timeout")


def run_facts(
    cfg: Config, dataset: CheckedDataset, settings: ModelSettings, device: torch.device, precision: str
) -> dict[str, Any]:
    """The facts of a run, but for its weights, its methods, and code of the user's own."""
    return {
        "dataset": {"name": dataset_name(cfg), **dataset_facts(dataset)},
        "input": input_facts(cfg, dataset),
        "model": {"words": digest(class_words(cfg).classes), **plain_data(settings.facts())},
        "other": _runner_facts(cfg),
        "code": NUMERICS["numerics"] if is_released() else source_digest(),
        "environment": {"device": device.type, "precision": precision, **package_versions()},
    }


def method_facts(method: Method, model_options: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """A method's label and options, the bytes of files that they name, and code that is the user's own.

    Args:
        method: as it was asked for.
        model_options: the model's own values of options that are None, see :meth:`Method.completed`.
    """
    facts = {"label": method.label, **_with_files(plain_data(method.settings))}
    second_encoders = second_encoder_facts(method, model_options or {})
    if second_encoders is not None:
        facts["second encoder"] = second_encoders
    own_classes = [type(member) for member in nested_methods(method) if not is_recorded(type(member))]
    if own_classes:
        facts["source"] = own_code_facts(own_classes)
    return facts


def _with_files(options: Any) -> Any:
    """Options in which the name of a file has become the hash of its content."""
    if isinstance(options, dict):
        return {name: _with_files(value) for name, value in options.items()}
    if isinstance(options, str) and Path(options).is_file():
        return {"file": hash_file(options)}
    return options


def dataset_facts(dataset: CheckedDataset) -> dict[str, Any]:
    """Images and masks by their bytes, and how labels are made of the ids in masks."""
    members = plain_datasets(dataset.dataset)
    infos = [info for _, info in islice(entries(dataset.dataset), dataset.total)]
    facts = {
        "count": len(infos),
        "classes": len(dataset.metainfo["classes"]),
        "ignore_index": dataset.ignore_index,
        "reduce_zero_label": all(bool(member.reduce_zero_label) for member in members),
        "images": hash_files(zip(dataset.names, (Path(info["img_path"]) for info in infos), strict=False)),
        "masks": hash_files(zip(dataset.names, (Path(info["seg_map_path"]) for info in infos), strict=False)),
    }
    label_rules = [_label_rules(member) for member in members]
    if len(members) > 1:
        # Where the second one begins, and which of them drops label 0.
        for rules, member in zip(label_rules, members, strict=True):
            rules.update(images=len(member), reduce_zero_label=bool(member.reduce_zero_label))
    if any(label_rules):
        facts["labels"] = digest(label_rules)
    return facts


def _label_rules(dataset: BaseSegDataset) -> dict[str, Any]:
    """How a dataset makes labels of ids: its map, and whatever its class adds to MMSegmentation's base class."""
    of_base_class = {*dir(BaseSegDataset(lazy_init=True))} - {"label_map"}
    return {name: value for name, value in _attributes_of(dataset).items() if name not in of_base_class}


def input_facts(cfg: Config, dataset: CheckedDataset) -> dict[str, Any]:
    """The steps from a file to what the model sees, as they were built."""
    pipelines = []
    for member in plain_datasets(dataset.dataset):
        pipelines.append([_step(step) for step in member.pipeline.transforms])
    facts: dict[str, Any] = {"pipelines": pipelines}
    if all(pipeline == pipelines[0] for pipeline in pipelines):
        facts = {"pipeline": pipelines[0]}
    infos = islice(entries(dataset.dataset), dataset.total)
    read_otherwise = images_read_otherwise(info["img_path"] for _, info in infos)
    if read_otherwise:  # their pixels follow our reader, not OpenCV
        facts["read otherwise"] = read_otherwise
    if cfg.model.get("data_preprocessor") is not None:
        facts["preprocessor"] = plain_data(vars(MODELS.build(cfg.model.data_preprocessor)))
    return facts


def _step(step: Any) -> dict[str, Any]:
    """A step of a pipeline: its class, and what is not the default, whether or not a config names it."""
    step_class: Any = type(step)
    state = _attributes_of(step)
    if isinstance(step, LoadLabels):  # what it knows of its dataset is among the dataset's facts
        step_class, state = LoadAnnotations, {"imdecode_backend": step.imdecode_backend}
    parameters: dict[str, inspect.Parameter] = {}
    for base_class in reversed(step_class.__mro__[:-1]):
        parameters.update(inspect.signature(base_class.__init__).parameters)
    facts = {"type": step_class.__name__}
    for name, value in state.items():
        if name not in parameters or value != plain_data(parameters[name].default):
            facts[name] = value
    return facts


def _attributes_of(instance: Any) -> dict[str, Any]:
    """The attributes of an object that say something: a file client's arguments as the client that they make."""
    state = {}
    for name, value in vars(instance).items():
        if name in ("backend_args", "file_client_args"):
            client = mmengine.fileio.get_file_backend("", backend_args=value or None)
            if type(client) is mmengine.fileio.LocalBackend:
                continue
        if value is not None and value is not False:
            state[name] = plain_data(value)
    return state


def _runner_facts(cfg: Config) -> dict[str, Any]:
    """Sections of a config that may change how an evaluation runs, without what cannot change a number."""
    facts = {
        "loader": {name: value for name, value in cfg.test_dataloader.items() if name not in _OF_LOADING},
        "test_evaluator": cfg.get("test_evaluator"),
        "test_cfg": cfg.get("test_cfg"),
        "default_hooks": cfg.get("default_hooks"),
        "custom_hooks": cfg.get("custom_hooks"),
        # There is a seed for every image, whatever that of the runner is.
        "deterministic": (cfg.get("randomness") or {}).get("deterministic"),
        "cudnn_benchmark": (cfg.get("env_cfg") or {}).get("cudnn_benchmark"),
    }
    unusual = {name: _unusual(section) for name, section in facts.items()}
    return {name: plain_data(section) for name, section in unusual.items() if section}


def _unusual(section: Any) -> Any:
    """A section of a config without what cannot change a number."""
    if isinstance(section, list | tuple):
        return list(filter(None, map(_unusual, section)))
    if not isinstance(section, Mapping):
        return section
    class_or_name = section.get("type")
    if getattr(class_or_name, "__name__", class_or_name) not in USUAL_PARTS:
        members = {name: _unusual(value) for name, value in section.items()}
        return {name: member for name, member in members.items() if member}
    if any(section.get(option) for option in _NUMERIC_OPTIONS):
        return dict(section)
    return None

"""What a run is made of, as plain data, computed before the first image.

Two runs with equal facts give equal numbers: an interrupted run is resumed, and a result found again, where the hash of
the facts is the same. Facts describe what was built, not how a config spelled it. Whether a run may fill a cell of a
published table is decided in :mod:`clearclip.evaluation.published_run`.
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
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import MODELS

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import class_words, dataset_name
from clearclip.evaluation.datasets import entries, plain_datasets
from clearclip.evaluation.image_loading import images_read_otherwise
from clearclip.evaluation.mask_loading import LoadLabels
from clearclip.evaluation.own_code import nested_methods, own_code_facts
from clearclip.evaluation.weight_facts import second_encoder_facts
from clearclip.methods import Method
from clearclip.model_settings import ModelSettings
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest, file_state, hash_file, hash_files, plain_data
from clearclip.utils.installed_code import NUMERICS, is_recorded, is_released, package_versions, source_digest

#: Attributes of a dataset that say where its files are, or are in the facts elsewhere.
_FILES_OF_DATASET = {
    "_metainfo", "data_root", "data_prefix", "ann_file", "data_list", "data_bytes", "data_address", "img_suffix",
    "seg_map_suffix", "filter_cfg", "_indices", "serialize_data", "test_mode", "max_refetch", "_fully_initialized",
    "pipeline", "reduce_zero_label", "ignore_index",
}  # fmt: skip
#: Sections of a config that an evaluation follows, beside its model and dataset.
_SECTIONS = ("test_evaluator", "test_cfg", "default_hooks", "custom_hooks")
#: Parts of these that change how fast it runs, what is printed and what is drawn; and options that do not.
HARMLESS_PARTS = {
    "CheckpointHook", "ConfusionMetric", "DefaultSampler", "DistSamplerSeedHook", "IoUMetric", "IterTimerHook",
    "LoggerHook", "ParamSchedulerHook", "RuntimeInfoHook", "SegVisualizationHook", "TestLoop", "pseudo_collate",
}  # fmt: skip
_LOADING = {"dataset", "batch_size", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "timeout"}
_NO_DEFAULT = "no default"
_NUMERIC_OPTIONS = {"ignore_index", "fp16", "shuffle"}


def run_facts(
    cfg: Config, dataset: CheckedDataset, settings: ModelSettings, device: torch.device, precision: str
) -> dict[str, Any]:
    """The facts of a run, but for its weights, its methods, and code of the user's own."""
    return {
        "dataset": {"name": dataset_name(cfg), **_dataset_facts(dataset)},
        "input": input_facts(cfg, dataset),
        "model": {"words": digest(class_words(cfg).classes), **plain_data(settings.facts())},
        "other": _other_facts(cfg),
        "code": NUMERICS["numerics"] if is_released() else source_digest(),
        "environment": {"device": device.type, "precision": precision, **package_versions()},
    }


def method_facts(method: Method) -> dict[str, Any]:
    """A method's label and options, files among them by what they hold, and code that is the user's own."""
    facts = {"label": method.label, **_files_by_content(plain_data(method.settings))}
    second_encoder = second_encoder_facts(method)
    if second_encoder is not None:
        facts["second encoder"] = second_encoder
    classes = [type(part) for part in nested_methods(method) if not is_recorded(type(part))]
    return {**facts, "source": own_code_facts(classes)} if classes else facts


def _files_by_content(options: Any) -> Any:
    if isinstance(options, dict):
        return {name: _files_by_content(value) for name, value in options.items()}
    return {"file": hash_file(options)} if isinstance(options, str) and Path(options).is_file() else options


def _dataset_facts(dataset: CheckedDataset) -> dict[str, Any]:
    """Images and masks by content, and how labels are made of the ids in masks."""
    infos = [info for _, info in islice(entries(dataset.dataset), dataset.total)]
    parts = plain_datasets(dataset.dataset)
    facts = {
        "count": len(infos),
        "classes": len(dataset.metainfo["classes"]),
        "ignore_index": dataset.ignore_index,
        "reduce_zero_label": all(bool(part.reduce_zero_label) for part in parts),
    }
    for name, key in (("images", "img_path"), ("masks", "seg_map_path")):
        facts[name] = hash_files(zip(dataset.names, (Path(info[key]) for info in infos), strict=False))
    rules = [_state(part, _FILES_OF_DATASET) for part in parts]
    if any(rules):
        facts["labels"] = digest(rules)
    # Where the second of several datasets begins, and which of them drops label 0.
    if len(parts) > 1:
        sizes = [[len(part), len(part.metainfo["classes"]), bool(part.reduce_zero_label)] for part in parts]
        facts["parts"] = digest(sizes)
    return facts


def input_facts(cfg: Config, dataset: CheckedDataset) -> dict[str, Any]:
    """The steps from a file to what the model sees, as they were built."""
    parts = plain_datasets(dataset.dataset)
    pipelines = [[_step(step) for step in part.pipeline.transforms] for part in parts]
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
    """A step of a pipeline: its name, and what is not its default."""
    kind: Any = type(step)
    state = _state(step, set())
    if isinstance(step, LoadLabels):  # what it knows of its dataset is among the dataset's facts
        kind, state = LoadAnnotations, {"imdecode_backend": step.imdecode_backend}
    # An argument at its default says nothing, whether a config names it or not.
    defaults: dict[str, Any] = {}
    for parent in reversed(kind.__mro__):
        if "__init__" in vars(parent) and parent is not object:
            parameters = inspect.signature(parent.__init__).parameters.values()
            defaults.update({parameter.name: parameter.default for parameter in parameters})
    changed = {name: value for name, value in state.items() if value != plain_data(defaults.get(name, _NO_DEFAULT))}
    return {"type": kind.__name__, **changed}


def _state(built: Any, left_out: set[str]) -> dict[str, Any]:
    """The attributes of an object that say something: a file client's arguments as the client that they make."""
    state = {}
    for name, value in vars(built).items():
        if name in ("backend_args", "file_client_args"):
            client = type(mmengine.fileio.get_file_backend("", backend_args=value or None)).__name__
            value = None if client == "LocalBackend" else value
        if value is not None and value is not False and name not in left_out:
            state[name] = plain_data(value)
    return state


def _other_facts(cfg: Config) -> dict[str, Any]:
    """What else of a config an evaluation follows, where it is not the usual."""
    loader = {name: value for name, value in cfg.test_dataloader.items() if name not in _LOADING}
    sections = {"loader": loader, **{name: cfg.get(name) for name in _SECTIONS}}
    facts = {name: _unusual(section) for name, section in sections.items()}
    # The seed of a runner changes nothing: there is one for every image.
    facts["deterministic"] = (cfg.get("randomness") or {}).get("deterministic")
    facts["cudnn_benchmark"] = (cfg.get("env_cfg") or {}).get("cudnn_benchmark")
    return {name: plain_data(value) for name, value in facts.items() if value}


def _unusual(section: Any) -> Any:
    """A section of a config without the parts that cannot change a number."""
    if isinstance(section, list | tuple):
        return [part for part in map(_unusual, section) if part]
    if not isinstance(section, Mapping):
        return section
    kind = section.get("type")
    if getattr(kind, "__name__", kind) in HARMLESS_PARTS:
        if not any(section.get(option) for option in _NUMERIC_OPTIONS):
            return None
        return dict(section)
    return {name: part for name, value in section.items() if (part := _unusual(value))}


def file_states(dataset: CheckedDataset) -> dict[Path, tuple[int, ...]]:
    """Size and times of all images and masks, by which a file that is written during a run is noticed."""
    infos = [info for _, info in islice(entries(dataset.dataset), dataset.total)]
    paths = {Path(info[key]) for info in infos for key in ("img_path", "seg_map_path")}
    return {path: file_state(path) for path in paths if path.is_file()}


def check_unchanged(dataset: CheckedDataset, before: Mapping[Path, tuple[int, ...]], facts: Mapping[str, Any]) -> None:
    """Raise a UserError where images or masks no longer hold what they held before the first image. Only files whose
    size or times differ are read again.
    """
    now = file_states(dataset)
    written = [path for path in before if now.get(path) != before[path]]
    if written and {**facts["dataset"], **_dataset_facts(dataset)} != facts["dataset"]:
        raise UserError(
            f"{written[0]} was changed by another program during the run; nothing was recorded, start again when the "
            "data stay as they are"
        )

"""Overrides of a config (``--cfg-options``): each is read by the evaluation, or refused with the path that is.

A config is a Python file. Once it is loaded, a variable such as ``data_root`` at its top has been copied to the places
that use it, and changing the variable changes nothing. MMEngine accepts such an override in silence; here it is an
error that names the path that works.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
)
from torch.utils.data import DataLoader

from clearclip.model_settings import ModelSettings
from clearclip.utils.errors import UserError
from clearclip.utils.validators import did_you_mean

#: The sections of a config that an evaluation reads.
SECTIONS = (
    "model", "test_dataloader", "test_evaluator", "test_cfg", "default_hooks", "custom_hooks", "env_cfg", "visualizer",
    "log_level", "randomness", "dataset_name", "expected_images", "data_preprocessor",
)  # fmt: skip
#: What MMEngine's tools read from a config and this project takes from the command line.
COMMAND_LINE = {
    "work_dir": "--workdir DIR",
    "resume": "--resume",
    "launcher": "--launcher",
    "load_from": "model.pretrained",
    "custom_imports": "--import FILE",
    "imports": "--import FILE",
    "limit": "--limit N",
    "results": "--results FILE",
    "on_error": "--on-error",
    "methods": "--methods",
    "show_dir": "--show-dir DIR",
}
#: Paths inside the sections that nothing reads, with the remedy.
UNREAD = {
    "model.train_cfg": "ClearCLIP trains nothing; leave it out",
    "model.short_side": "it is for segment(); a benchmark is resized by the Resize step of its pipeline",
    "model.long_side": "it is for segment(); a benchmark is resized by the Resize step of its pipeline",
    "test_dataloader.persistent_workers": "a test reads its images once; leave it out",
    "test_dataloader.collate_fn": "images of a batch may differ in size, which pseudo_collate allows; leave it out",
    "test_dataloader.sampler.round_up": "no image is read twice; leave it out",
    "env_cfg.dist_cfg": "processes talk through gloo, on CPU and GPU; leave it out",
}
#: Arguments of our own metric, which an evaluation gives it.
UNREAD_OF_METRIC = {"ignore_index": "give test_dataloader.dataset.ignore_index", "on_error": "give --on-error"}
#: Arguments of datasets that nothing reads in a test.
UNREAD_OF_DATASETS = {
    "test_mode": "it is always True here; leave it out",
    "serialize_data": "it is always False here; leave it out",
    "filter_cfg": "MMSegmentation filters nothing; give ann_file, a list of the images",
    "max_refetch": "an image that cannot be read is never replaced by another; leave it out",
}
#: Keys of dicts whose other keys are passed over in silence.
KEYS = {
    "data_prefix": ("img_path", "seg_map_path"),
    "metainfo": ("classes", "palette"),
    "env_cfg": ("cudnn_benchmark", "mp_cfg", "resource_limit"),
    "randomness": ("seed", "diff_rank_seed", "deterministic"),
}
#: Options of a model that name its method, weakest first: each is without effect beside those that follow.
METHOD_OPTIONS_BY_RANK = (("model_type", "ignore_residual"), ("method",), ("methods",))
METHOD_PATHS = [f"model.{option}" for options in METHOD_OPTIONS_BY_RANK for option in options]
REGISTRIES = (DATASETS, TRANSFORMS, METRICS, HOOKS, LOOPS, DATA_SAMPLERS, VISUALIZERS, VISBACKENDS)


def check_overrides(
    name: str, config: Mapping[str, Any], overrides: Mapping[str, Any], file_values: Mapping[str, Any]
) -> None:
    """Raise a UserError for the first override that an evaluation would not read.

    Args:
        name: of the config, for the message.
        config: the whole config, overrides included, as plain dicts.
        overrides: dotted paths to values.
        file_values: the config as its file has it.
    """
    for path, value in flat_overrides(overrides):
        section = path.partition(".")[0]
        if section not in SECTIONS:
            raise UserError(f"{name} does not read {path!r}; {_remedy_for(path, value, file_values)}")
        reason = _why_unread(path, value, config, file_values)
        if reason is not None:
            raise UserError(f"{name} does not read {path!r}: {reason}")


def check_given_twice(overrides: Mapping[str, Any], **arguments: Any) -> None:
    """Raise a UserError where an override and an argument of ``evaluate`` say the same thing; the argument would win.

    Args:
        overrides: dotted paths to values.
        arguments: ``data_root``, ``device``, ``batch_size``, ``workers`` and ``methods``; None where not given.
    """
    options = {
        "data_root": ("--data-root", ("data_root",)),
        "device": ("--device", ("model.device",)),
        "batch_size": ("--batch-size", ("test_dataloader.batch_size",)),
        "workers": ("--workers", ("test_dataloader.num_workers",)),
        "methods": ("--methods", tuple(METHOD_PATHS)),
    }
    for path, _ in flat_overrides(overrides):
        for argument, (option, paths) in options.items():
            # A method may be overridden in part, as model.method.alpha.
            is_same = any(f"{path}.".startswith(f"{same_path}.") for same_path in paths)
            is_same = is_same or (argument == "data_root" and path.endswith(".data_root"))
            if is_same and arguments.get(argument) is not None:
                raise UserError(f"{option} and {path} say the same thing, and only {option} would be read; give one")


def check_merged(config: Mapping[str, Any], overrides: Mapping[str, Any], data_root: str | None) -> None:
    """Raise a UserError where a config that is loaded already does not have what is to be overridden.

    Args:
        config: the loaded config, as plain dicts.
        overrides: dotted paths to values that :func:`~clearclip.evaluation.config.load_config` was given.
        data_root: must be None.
    """
    if data_root is not None:
        raise UserError("a config that is loaded already has its data_root; give data_root to load_config")
    for path, value in flat_overrides(overrides):
        if _value_at(config, path.split(".")) != value:
            raise UserError(f"a config that is loaded already takes no overrides; give {path} to load_config")


def flat_overrides(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths to values that are no dicts: ``model={'alpha': 2}`` is ``model.alpha=2``."""
    for name, value in overrides.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from flat_overrides(value, f"{path}.")
        elif name != "_delete_":
            yield path, value


def _why_unread(path: str, value: Any, config: Mapping[str, Any], file_values: Mapping[str, Any]) -> str | None:
    """Why a path in a section that is read has no effect, and what to do; None where it has one."""
    names = path.split(".")
    # Whole sections are named as well as single options: what is below them is not read either.
    for unread, remedy in UNREAD.items():
        if path == unread or path.startswith(f"{unread}."):
            return remedy
    if path.startswith("test_dataloader.dataset") and names[-1] in UNREAD_OF_DATASETS:
        return UNREAD_OF_DATASETS[names[-1]]
    # Our metric is always there, and is made with what the evaluation knows.
    owner = _value_at(config, names[:-1])
    is_own_metric = isinstance(owner, Mapping) and "ConfusionMetric" in str(owner.get("type"))
    # Naming it in a config changes nothing, and every config of MMSegmentation's kind does.
    if names[0] == "test_evaluator" and is_own_metric and names[-1] != "type":
        return UNREAD_OF_METRIC.get(names[-1], "ConfusionMetric is given all it needs; leave it out")
    if names[0] == "test_dataloader" and len(names) > 1 and names[1] not in _loader_options():
        return did_you_mean(names[1], _loader_options())
    # MMSegmentation reads these dicts by their keys, and passes over any other.
    if len(names) > 1 and names[-2] in KEYS:
        known_keys = {*KEYS[names[-2]], *(_value_at(file_values, names[:-1]) or ())}
        if names[-1] not in known_keys:
            return f"{'.'.join(names[:-1])} has no {names[-1]}; {did_you_mean(names[-1], sorted(known_keys))}"
    if names[0] == "model":
        return _why_unread_of_model(names[1:], value, config.get("model") or {})
    if names[0] == "data_preprocessor" and (file_values.get("model") or {}).get("data_preprocessor"):
        return f"the model has one of its own; give model.{path}"
    return _why_unknown_argument(names, config)


def _why_unread_of_model(names: Sequence[str], value: Any, model: Mapping[str, Any]) -> str | None:
    """Why an option of the model has no effect beside the others."""
    if not names:
        return None
    option = names[0]
    if option == "tlp_grid" and model.get("post") != "tlp":
        return "only post=tlp has a grid; give model.post=tlp, too"
    if option == "pretrained_tag" and value is not None and model.get("pretrained") in (None, "random"):
        return "it says whose weights a file holds; give model.pretrained=FILE, too"
    if option in ("clip_type", "vit_type") and value is not None and model.get("model_name") is not None:
        return f"model.model_name={model['model_name']} says which weights; give one of the two"
    # None takes an option back, so that it cannot contradict another one.
    if value is None:
        return None
    for stronger in _stronger_options(option):
        if model.get(stronger):
            return f"model.{stronger}={model[stronger]!r} says which method; give one of the two"
    return None


def _stronger_options(option: str) -> list[str]:
    """The options that are followed in place of this one, where both name a method."""
    stronger: list[str] = []
    # From the strongest down to the option's own rank.
    for options in reversed(METHOD_OPTIONS_BY_RANK):
        if option in options:
            return stronger
        stronger += options
    return []


def _why_unknown_argument(names: Sequence[str], config: Mapping[str, Any]) -> str | None:
    """Whether a class of the mm packages would swallow an argument that it does not have, as ``**kwargs``."""
    section: Any = config
    for depth, name in enumerate(names):
        if isinstance(section, Mapping) and "type" in section and name != "type":
            arguments = _arguments_of(section["type"])
            if arguments is not None and name not in arguments:
                where = ".".join(names[:depth])
                return f"{section['type']} ({where}) has no argument {name}; {did_you_mean(name, arguments)}"
        section = _value_at(section, [name])
    return None


def _arguments_of(type_or_name: Any) -> list[str] | None:
    """The named arguments of a class and its bases; None for classes of the user's own, which may read any."""
    cls = type_or_name if isinstance(type_or_name, type) else None
    if isinstance(type_or_name, str):
        # A config does not say which registry a name is of.
        classes = [registry.get(type_or_name) for registry in REGISTRIES]
        cls = next(filter(None, classes), None)
    if cls is None or cls.__module__.partition(".")[0] not in ("mmcv", "mmengine", "mmseg", "clearclip"):
        return None
    arguments: dict[str, None] = {}
    for base in cls.__mro__:
        initialiser: Callable | None = vars(base).get("__init__")
        if initialiser is None or base is object:
            continue
        for parameter in inspect.signature(initialiser).parameters.values():
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                arguments[parameter.name] = None
    return [argument for argument in arguments if argument != "self"]


def _remedy_for(path: str, value: Any, file_values: Mapping[str, Any]) -> str:
    """What to give instead of a path outside the sections."""
    names = path.split(".")
    if names[0] in ("default_scope", "model_wrapper_cfg"):
        return "an evaluation sets it; leave it out"
    if names[0] in COMMAND_LINE and len(names) == 1:
        return f"give {COMMAND_LINE[names[0]]}"
    readable = dict(_readable_paths(file_values))
    same_value = list(_paths_of_same_value(names, file_values, readable))
    if same_value:
        overrides_that_work = " ".join(f"{working}={value}" for working in same_value[:3])
        return f"the file has copied it already; give {overrides_that_work}"
    # No such value: the last part of a path often tells what is meant, as in slide_crop=128.
    path_by_last_name: dict[str, str] = {}
    for candidate in (*readable, *_paths_by_class()):
        path_by_last_name.setdefault(candidate.rpartition(".")[2], candidate)
    if names[-1] in path_by_last_name:
        return f"give {path_by_last_name[names[-1]]}={value}"
    similar = difflib.get_close_matches(path, [*SECTIONS, *readable], 1)
    if not similar:
        last_names = difflib.get_close_matches(names[-1], path_by_last_name, 1)
        similar = [path_by_last_name[last_name] for last_name in last_names]
    return f"did you mean {similar[0]}?" if similar else f"an evaluation reads {', '.join(SECTIONS)}"


def _paths_of_same_value(
    names: Sequence[str], file_values: Mapping[str, Any], readable: Mapping[str, Any]
) -> Iterator[str]:
    """Paths that have the value which the file's variable has, longest shared part first."""
    for length in range(len(names), 0, -1):
        value = _value_at(file_values, names[:length])
        if value is None or isinstance(value, bool):
            continue
        for path, candidate in readable.items():
            # Numbers are equal by chance, so their names have to be equal as well.
            is_same_name = path.rpartition(".")[2] == names[length - 1]
            if candidate == value and (is_same_name or not isinstance(value, int | float)):
                yield ".".join([path, *names[length:]])
        return


def _readable_paths(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every dotted path in the sections that are read, and its value."""
    for section in SECTIONS:
        if section in config:
            yield from _paths_below(section, config[section])


def _paths_below(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _paths_below(f"{path}.{name}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _paths_below(f"{path}.{index}", item)


def _paths_by_class() -> list[str]:
    """Paths that exist whether or not a config has them: options of models, loaders and datasets."""
    dataset = [name for name in inspect.signature(BaseSegDataset.__init__).parameters if name != "self"]
    return [
        *(f"model.{option.name}" for option in fields(ModelSettings)),
        *("model.name_path", "model.class_names", "model.methods"),
        *(f"test_dataloader.{name}" for name in _loader_options()),
        *(f"test_dataloader.dataset.{name}" for name in dataset),
    ]


def _loader_options() -> list[str]:
    """What ``test_dataloader`` may have: PyTorch's arguments and MMEngine's."""
    options = [name for name in inspect.signature(DataLoader.__init__).parameters if name != "self"]
    return [*options, "num_batch_per_epoch"]


def _value_at(config: Any, names: Sequence[str]) -> Any:
    """The value at a dotted path; None where there is none."""
    for name in names:
        if isinstance(config, Mapping):
            config = config.get(name)
        elif isinstance(config, list | tuple) and name.isdigit() and int(name) < len(config):
            config = config[int(name)]
        else:
            return None
    return config

"""The user's own code in a run: which of its classes are not released ones, and what is known of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, HOOKS, LOOPS
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.code_files import code_files, is_library
from clearclip.evaluation.config import model_settings
from clearclip.evaluation.datasets import plain_datasets
from clearclip.utils.fingerprint import digest, hash_file
from clearclip.utils.installed_code import is_recorded
from clearclip.utils.plain_data import plain_data

_REGISTRIES = (DATA_SAMPLERS, DATASETS, HOOKS, LOOPS, METRICS, MODELS, TRANSFORMS)


def own_classes(cfg: Config, dataset: CheckedDataset, hooks: Iterable[Any] = ()) -> list[type]:
    """The classes of a run, but for its methods, that no file of this package's or MMSegmentation's defines."""
    objects: list[Any] = [dataset, *hooks]
    post_processing = model_settings(cfg).chosen_post_processing
    if post_processing is not None:
        objects.append(post_processing)
    for member in plain_datasets(dataset.dataset):
        objects += [member, *member.pipeline.transforms]
    classes = [*map(type, objects), *_configured_classes(cfg.to_dict())]
    return [each_class for each_class in dict.fromkeys(classes) if not is_recorded(each_class)]


def _configured_classes(section: Any) -> Iterator[type]:
    """The class of every part of a config that has a type."""
    members: Iterable[Any] = ()
    if isinstance(section, Mapping):
        if "type" in section:
            yield from _registered_classes(section["type"])
        members = section.values()
    elif isinstance(section, list | tuple):
        members = section
    for member in members:
        yield from _configured_classes(member)


def _registered_classes(class_or_name: Any) -> Iterator[type]:
    """What a "type" in a config means: a class, or those of that name in all registries."""
    if isinstance(class_or_name, type):
        yield class_or_name
    elif isinstance(class_or_name, str):
        for registry in _REGISTRIES:
            registered = registry.get(class_or_name)
            if isinstance(registered, type):
                yield registered


def own_code_facts(classes: Iterable[type], imports: Iterable[str | Path] = ()) -> dict[str, str]:
    """What is known of the user's own code: for each file its name → the hash of its bytes; for each class what it is
    in memory, which may be newer or older than its file.

    Args:
        classes: those of the run that are not released ones.
        imports: files that were imported for the run.

    Raises:
        UserError: one lies in a folder with too many files.
    """
    classes = list(classes)
    facts = {f"class {own_class.__qualname__}": _class_digest(own_class) for own_class in classes}
    roots = [Path(path).resolve() for path in imports]
    for own_class in classes:
        roots += _files_of_class(own_class)
    for path, name in code_files(roots).items():
        # Files of several folders may have the same name.
        facts[f"file {name}"] = digest([facts.get(f"file {name}"), hash_file(path)])
    return facts


def _class_digest(own_class: type) -> str:
    """A hash of a class's members in memory."""
    members = dict(vars(own_class))
    for name in ("__dict__", "__weakref__", "__doc__"):
        members.pop(name, None)
    return digest(plain_data(members))


def _files_of_class(own_class: type) -> list[Path]:
    """The files that define a class and its bases, those of installed packages left out."""
    files = []
    for base_class in own_class.__mro__:
        file = getattr(sys.modules.get(base_class.__module__), "__file__", None)
        if file is not None and not is_recorded(base_class) and not is_library(Path(file).resolve()):
            files.append(Path(file).resolve())
    return files

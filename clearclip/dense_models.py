"""Backbones outside OpenCLIP whose patches are aligned with text: their names, their files, where those are published.

A model is a published name (``tipsv2-b14``), or a folder that has its files under the names that they were published
with. Nothing of a repository's own code is ever run. Names and addresses are data: ``dense_models.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearclip.utils.errors import UserError
from clearclip.utils.hub import fetch, fetch_url

#: The value of ``pretrained`` that means a model's published weights.
PUBLISHED = "published"
#: The one family whose repositories on the hub are complete, so that they can be named as they are.
_HUB_FAMILY, _HUB_PREFIX = "TIPSv2", "google/tipsv2-"


@dataclass(frozen=True)
class Family:
    """Models with the same kind of files.

    Attributes:
        name: as papers write it.
        files: what a file is for → patterns of its name in a folder, of which the first one that fits counts.
        telling_file: what that file is for which no other family has.
        optional: what a folder may lack.
        remedy: where to get the files by hand.
        has_class_token: whether the first token is a class token in the space of the text. C-RADIO has one for each of
            its teachers, and the first is not always that of SigLIP 2.
        same_tokens: whether all blocks have the tokens of the first.
    """

    name: str
    files: Mapping[str, list[str]]
    telling_file: str
    optional: list[str]
    remedy: str
    has_class_token: bool
    same_tokens: bool


@dataclass(frozen=True)
class DenseModel:
    """A published model.

    Attributes:
        family: which kind.
        sources: what a file is for → a repository on the hub and a file in it, or an address; empty for weights that
            only their owners hand out.
    """

    family: Family
    sources: Mapping[str, list[str] | str]


_DATA = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
FAMILIES = {name: Family(name, **entry) for name, entry in _DATA["families"].items()}
#: The models by name. C-RADIOv3-g is not among them: no source says which text tower its adaptor belongs to.
DENSE_MODELS = {
    name: DenseModel(FAMILIES[entry["family"]], entry["sources"]) for name, entry in _DATA["models"].items()
}


def find_family(model_name: str) -> Family | None:
    """The family of a model by its published name, its ``local-dir:`` folder or its repository; None for others.

    find_family("tipsv2-b14").name  # "TIPSv2"
    """
    if model_name in DENSE_MODELS:
        return DENSE_MODELS[model_name].family
    schema, _, location = model_name.partition(":")
    if schema == "hf-hub" and location.startswith(_HUB_PREFIX):
        return FAMILIES[_HUB_FAMILY]
    if schema == "local-dir" and Path(location).is_dir():
        return folder_family(Path(location))
    return None


def folder_family(folder: Path) -> Family | None:
    """Of which family the files in a folder are, by one that only this family has."""
    for family in FAMILIES.values():
        # The first pattern alone: further ones are names that other models' files may have.
        telling_pattern = family.files[family.telling_file][0]
        if any(folder.glob(telling_pattern)):
            return family
    # In the layout of the hub, a model.safetensors may be anyone's.
    config = folder / "config.json"
    if not ((folder / "tokenizer.model").is_file() and config.is_file()):
        return None
    # Its configuration has had two forms; both name the model.
    if "tipsv2" not in config.read_text(encoding="utf-8", errors="replace"):
        return None
    return FAMILIES[_HUB_FAMILY]


def dense_files(model_name: str, pretrained: str | None) -> dict[str, Path]:
    """The files of a model, by what each is for; fetched where they are published and not on this machine.

    Args:
        model_name: its name, or its folder as ``local-dir:``, or its repository as ``hf-hub:``.
        pretrained: a folder; or :data:`PUBLISHED` or None for the published weights.

    Raises:
        UserError: a file that is not there or cannot be fetched; says which, and where to get it.
    """
    family = find_family(model_name)
    schema, _, location = model_name.partition(":")
    if pretrained not in (None, PUBLISHED):
        return _files_in(Path(pretrained), family)
    if schema == "local-dir":
        return _files_in(Path(location), family)
    # A repository that is none of those below has the files of the first one.
    name = model_name
    if schema == "hf-hub":
        name = location.removeprefix("google/")
    model = DENSE_MODELS.get(name) or DENSE_MODELS["tipsv2-b14"]
    remedy = f"{family.remedy}, and give their folder as pretrained"
    if not model.sources:
        raise UserError(f"the weights of {model_name} cannot be downloaded by a program; {remedy}")
    files = {}
    for purpose, source in model.sources.items():
        if isinstance(source, str):
            files[purpose] = fetch_url(source, remedy=remedy)
        else:
            repository, file = source
            if schema == "hf-hub":
                repository = location
            files[purpose] = fetch(repository, file, remedy=remedy)
    return files


def _first_match(folder: Path, patterns: Sequence[str]) -> Path | None:
    """The first file in a folder, by the first pattern that any fits."""
    for pattern in patterns:
        # Sorted, since a file system lists files in any order.
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                return path
    return None


def _files_in(folder: Path, family: Family) -> dict[str, Path]:
    """The files of a family in a folder, by what each is for."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; {family.remedy}, and give their folder as pretrained")
    files = {}
    for purpose, patterns in family.files.items():
        path = _first_match(folder, patterns)
        if path is not None:
            files[purpose] = path
        elif purpose not in family.optional:
            names = " or ".join(patterns)
            raise UserError(f"{folder} lacks the {purpose} of {family.name} ({names}); {family.remedy}")
    return files

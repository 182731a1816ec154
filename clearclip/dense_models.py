"""Backbones outside OpenCLIP whose patches are aligned with text: their names, their files, where those are published.

A model is a published name (``tipsv2-b14``), or a folder that has its files under the names that they were published
with. Nothing of a repository's own code is ever run. Names and addresses are data: ``dense_models.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
        optional: what a folder may lack.
        remedy: where to get the files by hand.
        has_class_token: whether the first token is a class token in the space of the text. C-RADIO has one for each of
            its teachers, and the first is not always that of SigLIP 2.
        same_tokens: whether all blocks have the tokens of the first.
    """

    name: str
    files: Mapping[str, list[str]]
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
    """The family of a model by its published name, its ``local-dir:`` folder or its repository; None for others."""
    if model_name in DENSE_MODELS:
        return DENSE_MODELS[model_name].family
    schema, _, place = model_name.partition(":")
    if schema == "hf-hub" and place.startswith(_HUB_PREFIX):
        return FAMILIES[_HUB_FAMILY]
    return folder_family(Path(place)) if schema == "local-dir" and Path(place).is_dir() else None


def folder_family(folder: Path) -> Family | None:
    """Of which family the files in a folder are, by one that only this family has."""
    for name, part in (("TIPSv2", "image"), ("dino.txt", "text"), ("C-RADIO", "adaptors"), ("Talk2DINO", "projection")):
        if any(folder.glob(FAMILIES[name].files[part][0])):
            return FAMILIES[name]
    # In the layout of the hub, a model.safetensors may be anyone's.
    config = folder / "config.json"
    if (folder / "tokenizer.model").is_file() and config.is_file():
        return FAMILIES[_HUB_FAMILY] if "tipsv2" in config.read_text(encoding="utf-8", errors="replace") else None
    return None


def dense_files(model_name: str, pretrained: str | None) -> dict[str, Path]:
    """The files of a model, by what each is for; fetched where they are published and not on this machine.

    Args:
        model_name: its name, or its folder as ``local-dir:``, or its repository as ``hf-hub:``.
        pretrained: a folder; or :data:`PUBLISHED` or None for the published weights.

    Raises:
        UserError: a file that is not there or cannot be fetched; says which, and where to get it.
    """
    family = find_family(model_name)
    schema, _, place = model_name.partition(":")
    if pretrained not in (None, PUBLISHED):
        return _files_in(Path(pretrained), family)
    if schema == "local-dir":
        return _files_in(Path(place), family)
    # A repository that is none of those below has the files of the first one.
    name = place.removeprefix("google/") if schema == "hf-hub" else model_name
    model = DENSE_MODELS.get(name) or DENSE_MODELS["tipsv2-b14"]
    remedy = f"{family.remedy}, and give their folder as pretrained"
    if not model.sources:
        raise UserError(f"the weights of {model_name} cannot be downloaded by a program; {remedy}")
    files = {}
    for part, source in model.sources.items():
        if isinstance(source, str):
            files[part] = fetch_url(source, remedy=remedy)
        else:
            files[part] = fetch(place if schema == "hf-hub" else source[0], source[1], remedy=remedy)
    return files


def _files_in(folder: Path, family: Family) -> dict[str, Path]:
    """The files of a family in a folder, by what each is for."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; {family.remedy}, and give their folder as pretrained")
    files = {}
    for part, patterns in family.files.items():
        matching = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
        if matching:
            files[part] = matching[0]
        elif part not in family.optional:
            raise UserError(f"{folder} lacks the {part} of {family.name} ({' or '.join(patterns)}); {family.remedy}")
    return files

"""Tokenizers as a model's configuration names them, from local files; whatever it says, none of its code is run."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

from clearclip.model_folders import read_json
from clearclip.utils.errors import UserError
from clearclip.utils.hub import download_from_hub, fetch

#: One of these is a tokenizer; the others belong to it.
NEEDED = ("tokenizer.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.txt", "vocab.json")
FURTHER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "config.json")
#: What of ``tokenizer_kwargs`` is taken.
TOKENIZER_OPTIONS = ("clean", "strip_sep_token", "language")
#: A name on the hub: its owner's and its own.
_REPOSITORY = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def load_tokenizer(text: dict[str, Any], folder: Path | None) -> Callable[[list[str]], Any]:
    """The tokenizer of a text tower.

    Args:
        text: the ``text_cfg`` of its configuration.
        folder: where the model is, for one that is in a folder; it is used where it has a tokenizer's files.

    Raises:
        UserError: a tokenizer that cannot be fetched or loaded; says which files to get.
    """
    name = text.get("hf_tokenizer_name")
    remedy = f"put the tokenizer's files ({NEEDED[0]} and {FURTHER[0]}) into the model's folder or the hub's cache"
    if name and (folder is None or not any((folder / file).is_file() for file in NEEDED)):
        folder = _fetch(str(name), remedy)
    try:
        config = text.get("tokenizer_kwargs") or {}
        options: dict[str, Any] = {option: config[option] for option in TOKENIZER_OPTIONS if option in config}
        options["context_length"] = text.get("context_length") or DEFAULT_CONTEXT_LENGTH
        tokenizer: Callable[[list[str]], Any]
        if name:
            check_no_paths(folder)
            options |= dict(tokenizer_mode=text.get("tokenizer_mode"), local_files_only=True, trust_remote_code=False)
            tokenizer = HFTokenizer(str(folder), **options)
        else:
            tokenizer = SimpleTokenizer(**options)
        tokenizer(["a photo"])  # what it lacks shows now
    except UserError:
        raise
    except Exception as error:  # whatever a missing or damaged file raises, or options of anyone's
        raise UserError(f"the tokenizer in {folder} cannot be loaded ({error}); {remedy}") from error
    return tokenizer


def text_model_folder(name: str, folder: Path | None) -> Path:
    """Where the configuration of a text tower of Hugging Face's is: within the model's folder, or on the hub.

    Args:
        name: ``hf_model_name`` of the model's configuration: a folder in the model's own, or a repository.
        folder: where the model is, for one that is in a folder.

    Raises:
        UserError: it cannot be fetched, is a path that leads elsewhere, or names code of its own.
    """
    text_folder = _subfolder(folder, name)
    if text_folder is None and not _REPOSITORY.fullmatch(name):
        raise UserError(
            f"the text tower {name!r} (hf_model_name) is neither a repository on the hub nor in the model's folder; no "
            "other path is read, so copy its config.json into a folder beside the weights and name that"
        )
    if text_folder is None:
        text_folder = fetch(name, "config.json", remedy=f"get the config.json of {name} into the hub's cache").parent
    if "auto_map" in read_json(text_folder / "config.json"):
        raise UserError(f"the text tower {name} comes with code of its own, which is not run; choose another model")
    return text_folder


def _subfolder(folder: Path | None, name: str) -> Path | None:
    """A folder within a model's folder; None where there is none, or where the name leads elsewhere."""
    if folder is None or "\0" in name:
        return None
    # Resolved, so that neither ".." nor a link leads out.
    subfolder = (folder / name).resolve()
    if not subfolder.is_dir() or not subfolder.is_relative_to(folder.resolve()):
        return None
    return subfolder


def check_no_paths(folder: Path) -> None:
    """Raise a UserError where a tokenizer's configuration names files elsewhere, which some loaders would read."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    for name, value in read_json(path).items():
        if name == "special_tokens_map_file":  # many published ones have it, and no loader reads it
            continue
        values = [value]
        if isinstance(value, list):
            values = value
        paths = [file for file in values if isinstance(file, str) and Path(file).name != file]
        if name.endswith(("_file", "_files")) and paths:
            raise UserError(
                f"{path} names {paths[0]!r} as its {name}, and no other path than its folder is read; remove that entry"
            )


def _fetch(repository: str, remedy: str) -> Path:
    """The folder with a tokenizer's files. No request where one that is needed is cached: the others come before it."""
    with suppress(Exception):  # no network, or a name that is none: said below
        if not any(isinstance(try_to_load_from_cache(repository, name), str) for name in NEEDED):
            for name in FURTHER:
                with suppress(EntryNotFoundError):
                    download_from_hub(repository, name)
    return fetch(repository, *NEEDED, remedy=remedy).parent

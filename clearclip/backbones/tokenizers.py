"""Tokenizers as a model's configuration names them, from local files; whatever it says, none of its code is run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

from clearclip.utils.errors import UserError
from clearclip.utils.hub import download_from_hub, fetch
from clearclip.weights import read_json

#: One of these is a tokenizer; the others belong to it.
NEEDED = ("tokenizer.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.txt", "vocab.json")
FURTHER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "config.json")
#: What of ``tokenizer_kwargs`` is taken.
OPTIONS = ("clean", "strip_sep_token", "language")


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
        options = text.get("tokenizer_kwargs") or {}
        options = {one: options[one] for one in OPTIONS if one in options}
        options["context_length"] = text.get("context_length") or DEFAULT_CONTEXT_LENGTH
        if name:
            options |= dict(tokenizer_mode=text.get("tokenizer_mode"), local_files_only=True, trust_remote_code=False)
        tokenizer = HFTokenizer(str(folder), **options) if name else SimpleTokenizer(**options)
        tokenizer(["a photo"])  # what it lacks shows now
    except Exception as error:  # whatever a missing or damaged file raises, or options of anyone's
        raise UserError(f"the tokenizer in {folder} cannot be loaded ({error}); {remedy}") from error
    return tokenizer


def text_model_folder(name: str) -> Path:
    """Where the configuration of a text tower of Hugging Face's is: a folder, or fetched from the hub.

    Raises:
        UserError: it cannot be fetched, or names code of its own.
    """
    remedy = f"get the config.json of {name} into the hub's cache"
    folder = Path(name) if Path(name).is_dir() else fetch(name, "config.json", remedy=remedy).parent
    if "auto_map" in read_json(folder / "config.json"):
        raise UserError(f"the text tower {name} comes with code of its own, which is not run; choose another model")
    return folder


def _fetch(repository: str, remedy: str) -> Path:
    """The folder with a tokenizer's files. No request where one that is needed is cached: the others come before it."""
    with suppress(Exception):  # no network, or a name that is none: said below
        if not any(isinstance(try_to_load_from_cache(repository, name), str) for name in NEEDED):
            for name in FURTHER:
                with suppress(EntryNotFoundError):
                    download_from_hub(repository, name)
    return fetch(repository, *NEEDED, remedy=remedy).parent

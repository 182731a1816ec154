"""Which weights are meant, and which files hold them.

The activation is the trap: OpenAI's and MetaCLIP's weights were trained with QuickGELU, OpenCLIP only warns of a
mismatch and goes on with plain GELU. Here the activation follows the pretrained tag, also for a file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_url

from clearclip.checkpoint_names import BUNDLED_NAMES, CHECKPOINT_BY_MODEL_NAME, CHECKPOINTS, DEFAULT_VIT_TYPES
from clearclip.dense_models import DENSE_MODELS, PUBLISHED, dense_files, find_family
from clearclip.model_folders import (
    HUGGING_FACE_CONFIG,
    HUGGING_FACE_FILES,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_FILES,
    folder_remedy,
    layout,
    model_folder,
    read_json,
)
from clearclip.utils.errors import UserError
from clearclip.utils.hub import fetch
from clearclip.utils.open_clip_import import open_clip
from clearclip.utils.validators import most_similar

#: The value of ``pretrained`` for random weights.
RANDOM = "random"

#: How files with weights end.
_CHECKPOINT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
#: How files of a training begin that are no weights.
_TRAINING_FILES = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")

# OpenAI's mean and std of 0..255 RGB, used for every model of the published tables.
OPENAI_MEAN = (122.771, 116.746, 104.094)
OPENAI_STD = (68.501, 66.632, 70.323)


@dataclass(frozen=True)
class Weights:
    """What to load.

    Attributes:
        model_name: a name that ``open_clip.create_model`` takes, ``hf-hub:`` and ``local-dir:`` included. Either may be
            a CLIPModel or SiglipModel in Hugging Face's layout.
        pretrained: a tag, a checkpoint file, a folder with one, :data:`RANDOM`, or None: the weights that a ``hf-hub:``
            or ``local-dir:`` model has with it.
        quick_gelu: the activation, or None to let the model's own configuration decide.
        tag: the tag that these weights are said to belong to, where known.
    """

    model_name: str
    pretrained: str | None
    quick_gelu: bool | None = None
    tag: str | None = None

    @property
    def bundled_name(self) -> str | None:
        """The name of the model where it comes with the package; None for any other."""
        return BUNDLED_NAMES.get((self.model_name, self.pretrained))

    @property
    def label(self) -> str:
        """In words: ``ViT-B-16 (openai)``."""
        return self.bundled_name or f"{self.model_name} ({self.pretrained or 'own weights'})"


def choose_weights(
    clip_type: str | None = None,
    vit_type: str | None = None,
    model_name: str | os.PathLike | None = None,
    pretrained: str | os.PathLike | None = None,
    quick_gelu: bool | None = None,
    pretrained_tag: str | None = None,
) -> Weights:
    """Resolve the options of the same names (:class:`clearclip.ModelSettings`) to weights and activation.

    Raises:
        UserError: an unknown model or tag, or a model without weights of its own, and none named.
    """
    name = _expand(model_name) if model_name else None
    source = _expand(pretrained) if pretrained else None
    if name in CHECKPOINT_BY_MODEL_NAME:
        clip_type, vit_type = CHECKPOINT_BY_MODEL_NAME[name]
        name = None
    is_row_named = clip_type is not None or (name is None and source is None)
    # A file or folder alone may say itself which model it is of.
    if not is_row_named and name is None:
        name, source = _described_beside(source)
    clip_type = clip_type or "CLIP"
    vit_type = vit_type or DEFAULT_VIT_TYPES.get(clip_type)
    row_name, row_tag = CHECKPOINTS.get((clip_type, vit_type), (None, None))
    name = _full_name(name or row_name, row_name)
    if find_family(name) is not None:
        return _dense_weights(name, source, quick_gelu)
    if ":" in name:
        return Weights(name, source, quick_gelu)
    # A file may be anyone's if only its place is given.
    is_row = is_row_named and name == row_name
    return _tagged_weights(name, source, quick_gelu, pretrained_tag, row_tag, is_row)


def _tagged_weights(
    model_name: str,
    pretrained: str | None,
    quick_gelu: bool | None,
    pretrained_tag: str | None,
    row_tag: str | None,
    is_row: bool,
) -> Weights:
    """Weights of a model of OpenCLIP's (or BLIP, DINO), by their tag or as a file.

    Args:
        model_name, pretrained, quick_gelu, pretrained_tag: of :func:`choose_weights`.
        row_tag: the tag that a row of the published tables has.
        is_row: whether the options name such a row.
    """
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(model_name))
    if pretrained_tag is not None and pretrained_tag != row_tag and not known_tag_of(model_name, pretrained_tag):
        fault = f"{model_name} has no tag {pretrained_tag!r}, as pretrained_tag says"
        raise UserError(f"{fault}; it has {tags or row_tag}")
    tag = None
    if is_row:
        tag = row_tag
    if pretrained is None and tag is None:
        fault = f"{model_name} has no weights of its own"
        raise UserError(f"{fault}; name them as pretrained: a tag ({tags or 'none'}), a file, or random")
    if pretrained not in (None, RANDOM):
        tag = pretrained_tag or known_tag_of(model_name, pretrained) or tag
    if pretrained is None:
        pretrained = tag
    if quick_gelu is None and (tag is not None or pretrained != RANDOM):
        quick_gelu = _activation(model_name, tag, pretrained)
    return Weights(model_name, pretrained, quick_gelu, tag)


def _dense_weights(model_name: str, pretrained: str | None, quick_gelu: bool | None) -> Weights:
    """The weights of a model of :mod:`clearclip.dense_models`, in the folder that ``pretrained`` names or published."""
    if quick_gelu is not None:
        raise UserError(f"{model_name} has one activation only; leave quick_gelu out")
    if pretrained == RANDOM:
        raise UserError(f"{model_name} takes the sizes of its towers from its files; name their folder as pretrained")
    if pretrained not in (None, PUBLISHED):
        # One of the files stands for all of them, which lie beside it.
        folder = Path(pretrained)
        if folder.is_file():
            folder = folder.parent
        return Weights(model_name, str(folder))
    if model_name in DENSE_MODELS:
        return Weights(model_name, PUBLISHED, tag=PUBLISHED)
    return Weights(model_name, None)  # a folder or a repository has its weights with it


def _expand(name: str | os.PathLike) -> str:
    # A Path would drop the ./ by which a file is no tag.
    path = os.path.expanduser(os.fspath(name))  # noqa: PTH111
    if len(path) > 4000 or max(map(len, os.fsencode(path).split(b"/"))) > 255:
        raise UserError(f"{path[:100]}… is too long for a model or its weights; give a shorter path")
    return path


def _described_beside(pretrained: str) -> tuple[str | None, str | None]:
    """Model name and ``pretrained`` for a folder that has a model's configuration, or a file in one."""
    path = Path(pretrained)
    folder = path
    if not path.is_dir():
        folder = path.parent
    # The name of a published file says whose it is, whatever lies beside it.
    is_published_file = known_tag_of(CHECKPOINTS["CLIP", "ViT-B/16"][0], pretrained) is not None
    if is_published_file or not path.exists() or layout(folder) is None:
        return None, pretrained
    if path.is_dir():
        return f"local-dir:{folder}", None
    return f"local-dir:{folder}", pretrained


def _full_name(name: str, row_name: str | None) -> str:
    """A model's name as OpenCLIP spells it; a folder becomes ``local-dir:``. ``row_name`` is that of a table's row.

    Raises:
        UserError: there is no such model.
    """
    schema, _, folder = name.partition(":")
    if schema == "local-dir":
        return f"local-dir:{_expand(folder)}"
    if schema == "hf-hub" or name == row_name or name in DENSE_MODELS:
        return name
    if ":" not in name and open_clip.get_model_config(name.replace("/", "-")) is not None:
        return name.replace("/", "-")
    if Path(name).is_dir():
        return f"local-dir:{name}"
    similar_name = most_similar(name, [*CHECKPOINT_BY_MODEL_NAME, *DENSE_MODELS, *open_clip.list_models()])
    suggestion = f"did you mean {similar_name}? " if similar_name else ""
    raise UserError(
        f"unknown model {name!r}; {suggestion}open_clip.list_models() has the names, open_clip.add_model_config adds "
        f"yours, and a folder or hf-hub:OWNER/NAME is one as well, and so are {', '.join(DENSE_MODELS)}"
    )


def known_tag_of(model_name: str, pretrained: str) -> str | None:
    """The tag that ``pretrained`` is, or whose published file has the same name as the file ``pretrained``."""
    if open_clip.get_pretrained_cfg(model_name, pretrained):
        return pretrained.lower().replace("-", "_")
    for tag in open_clip.list_pretrained_tags_by_model(model_name):
        published = open_clip.get_pretrained_cfg(model_name, tag).get("url")
        if published and published.rpartition("/")[2] == Path(pretrained).name:
            return tag
    return None


def values_of_tags(model_name: str, tag: str | None, name: str, default: Any = None) -> set[Any]:
    """What a tag, or where it is None all tags of a model, say about "quick_gelu", "mean" or "std"."""
    tags = [tag]
    if tag is None:
        tags = open_clip.list_pretrained_tags_by_model(model_name)
    return {open_clip.get_pretrained_cfg(model_name, tag).get(name, default) for tag in tags}


def _activation(model_name: str, tag: str | None, pretrained: str) -> bool | None:
    """Whether weights were trained with QuickGELU, as their tag or all tags of the model say."""
    config = open_clip.get_model_config(model_name) or {}
    activations = values_of_tags(model_name, tag, "quick_gelu", config.get("quick_gelu", False))
    if len(activations) == 1:
        return activations.pop()
    if activations and os.path.exists(pretrained):  # noqa: PTH110 (what is not there is an error soon)
        warnings.warn(
            f"weights of {model_name} exist with QuickGELU (OpenAI, MetaCLIP, DFN) and with GELU (LAION); {pretrained} "
            "does not say which, so GELU is taken: set quick_gelu (--quick-gelu, --no-quick-gelu)",
            stacklevel=4,
        )
    return None


def _tag_remedy(name: str, tag: str, repository: str, file: str, quick_gelu: bool) -> str:
    """What to do where a tag's file cannot be fetched. The file's name does not say the activation."""
    activation, flag = "GELU", "--no-quick-gelu"
    if quick_gelu:
        activation, flag = "QuickGELU", "--quick-gelu"
    return (
        f"download {hf_hub_url(repository, file)} elsewhere and give it with its activation, {activation}: "
        f"--model {name} --pretrained {file} {flag} (demo.py, analyze.py), or --cfg-options model.pretrained={file} "
        f"model.pretrained_tag={tag} (eval.py, eval_all.py); docs/weights.md has more; "
        "the bundled miniature needs no network, and knows drawn scenes: --model miniature"
    )


def find_checkpoint(weights: Weights) -> list[Path]:
    """The files that hold these weights (several for one in shards), fetched if need be; none for random ones.

    A name that is a tag means the tag, whatever files there are.

    Raises:
        UserError: there are none, or they cannot be fetched; or it is not clear which.
    """
    name, pretrained = weights.model_name, weights.pretrained
    if pretrained == RANDOM:
        return []
    if find_family(name) is not None and not (pretrained and Path(pretrained).is_file()):
        # A file may serve two purposes, and is named once.
        return list(dict.fromkeys(dense_files(name, pretrained).values()))
    tag_config = None
    if pretrained is not None and ":" not in name:
        tag_config = open_clip.get_pretrained_cfg(name, pretrained)
    if tag_config:
        return [_fetch_tag(name, pretrained, tag_config)]
    if pretrained is None and name.startswith("hf-hub:"):
        return _fetch_repository(name)
    if pretrained is None:
        return _local_files(model_folder(name))
    path = Path(pretrained)
    if path.is_dir() or path.is_file():
        return _local_files(path)
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
    if Path(pretrained).suffix in _CHECKPOINT_SUFFIXES or os.sep in pretrained:
        raise UserError(f"{pretrained}: there is no such file; check its name, or give a tag of {name} ({tags})")
    raise UserError(f"pretrained={pretrained!r} is neither a file nor a folder nor a tag of {name} (tags: {tags})")


def _fetch_tag(name: str, tag: str, tag_config: dict[str, Any]) -> Path:
    """The published file of a tag, of which OpenCLIP knows the repository."""
    repository, _, file = tag_config["hf_hub"].rpartition("/")
    files: Sequence[str] = OPEN_CLIP_FILES
    if file:
        files = [file]
    remedy = _tag_remedy(name, tag, repository, files[0], tag_config.get("quick_gelu"))
    return fetch(repository, *files, remedy=remedy)


def _fetch_repository(name: str) -> list[Path]:
    """The weights that a ``hf-hub:`` model has with it."""
    usual_files = HUGGING_FACE_FILES
    if layout(model_folder(name)) == OPEN_CLIP_CONFIG:
        usual_files = OPEN_CLIP_FILES
    indices = [f"{file}.index.json" for file in usual_files]
    fetch_file = partial(fetch, name.partition(":")[2], remedy=folder_remedy(name))
    return _shards(fetch_file(*usual_files, *indices), fetch_file)


def _local_files(path: Path) -> list[Path]:
    """The files of weights that are in a folder, in a file, or in the shards that a file lists."""
    if path.is_dir():
        path = _checkpoint_in(path)
    return _shards(path, path.parent.joinpath)


def _checkpoint_in(folder: Path) -> Path:
    """The file with weights in a folder: one of the usual name, the index of shards, or the only one that there is."""
    usual_names = list(HUGGING_FACE_FILES)
    if layout(folder) != HUGGING_FACE_CONFIG:
        usual_names = [*OPEN_CLIP_FILES, *HUGGING_FACE_FILES]
    for name in usual_names:
        for path in (folder / name, folder / f"{name}.index.json"):
            if path.is_file():
                return path
    candidates = list(folder.glob("*.index.json"))
    if not candidates:
        files = sorted(path for path in folder.iterdir() if path.suffix in _CHECKPOINT_SUFFIXES)
        candidates = [path for path in files if not path.stem.startswith(_TRAINING_FILES)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        contents = f"several ({', '.join(path.name for path in candidates[:5])})"
    else:
        contents = f"none ({', '.join(usual_names)})"
    raise UserError(f"which weights in {folder}? It has {contents}; give the file as pretrained")


def _shards(path: Path, find_shard: Callable[[str], Path]) -> list[Path]:
    """The file itself, or those that it lists if it is the index of shards."""
    if path.suffix != ".json":
        return [path]
    # Each weight's name → the shard that has it.
    file_by_weight = read_json(path).get("weight_map")
    names: list[str] = []
    if isinstance(file_by_weight, dict):
        names = sorted({str(name) for name in file_by_weight.values()})
    # An index of anyone's names no file elsewhere.
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{path} does not list files beside it as shards; download it again")
    shards = [find_shard(name) for name in names]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise UserError(f"{path.parent} lacks the shards {', '.join(absent[:5])}; download them as well")
    return shards

"""Which weights are meant, and which files hold them.

The activation is the trap: OpenAI's and MetaCLIP's weights were trained with QuickGELU, OpenCLIP only warns of a
mismatch and goes on with plain GELU. Here the activation follows the pretrained tag, also for a file.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_url

from clearclip.checkpoint_names import CHECKPOINTS
from clearclip.dense_models import DENSE_MODELS, PUBLISHED, dense_files, find_family, folder_family
from clearclip.miniature import DIRECTORY as MINIATURE
from clearclip.utils.errors import UserError
from clearclip.utils.hub import fetch
from clearclip.utils.open_clip_import import open_clip

#: The value of ``pretrained`` for random weights.
RANDOM = "random"

#: What a model is described by: OpenCLIP's file, and that of a CLIPModel or SiglipModel of Hugging Face's.
OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG = "open_clip_config.json", "config.json"
#: The layout of models that are known by the names of their files.
DENSE_LAYOUT = "dense"
#: The usual names of a model's weights; with ``.index.json`` they are in shards.
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")
HUGGING_FACE_TYPES = ("clip", "siglip")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
#: How files of a training begin that are no weights.
TRAINING = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")

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
    def is_miniature(self) -> bool:
        """Whether these are the bundled model's."""
        return self.model_name == f"local-dir:{MINIATURE}" and self.pretrained is None

    @property
    def label(self) -> str:
        """In words: ``ViT-B-16 (openai)``."""
        if self.is_miniature:
            return "miniature"
        return f"{self.model_name} ({self.pretrained or 'own weights'})"


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
    pretrained = _expand(pretrained) if pretrained else None
    model_name = _expand(model_name) if model_name else None
    if model_name == "miniature":
        model_name, clip_type = None, "Miniature"
    if clip_type is None and model_name is None and pretrained is not None:
        model_name, pretrained = _described_beside(pretrained)
    if clip_type is None and model_name is None and pretrained is None:
        clip_type = "CLIP"
    vit_type = "Miniature/8" if clip_type == "Miniature" else vit_type or "ViT-B/16"
    known_name, known_tag = CHECKPOINTS.get((clip_type or "CLIP", vit_type), (None, None))
    model_name = _full_name(model_name or known_name, known_name)
    if find_family(model_name) is not None:
        return _dense_weights(model_name, pretrained, quick_gelu)
    if ":" in model_name:
        return Weights(model_name, pretrained, quick_gelu)
    # A file may be anyone's if only its place is given.
    tag = known_tag if clip_type is not None and model_name == known_name else None
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(model_name))
    if pretrained_tag is not None and not (known_tag_of(model_name, pretrained_tag) or pretrained_tag == known_tag):
        fault = f"{model_name} has no tag {pretrained_tag!r}, as pretrained_tag says"
        raise UserError(f"{fault}; it has {tags or known_tag}")
    if pretrained not in (None, RANDOM):
        tag = pretrained_tag or known_tag_of(model_name, pretrained) or tag
    elif pretrained is None and tag is None:
        fault = f"{model_name} has no weights of its own"
        raise UserError(f"{fault}; name them as pretrained: a tag ({tags or 'none'}), a file, or random")
    pretrained = pretrained or tag
    if quick_gelu is None and (tag is not None or pretrained != RANDOM):
        quick_gelu = _activation(model_name, tag, pretrained)
    return Weights(model_name, pretrained, quick_gelu, tag)


def _dense_weights(model_name: str, pretrained: str | None, quick_gelu: bool | None) -> Weights:
    """The weights of a model of :mod:`clearclip.dense_models`, in the folder that ``pretrained`` names or published."""
    if quick_gelu is not None:
        raise UserError(f"{model_name} has one activation only; leave quick_gelu out")
    if pretrained == RANDOM:
        raise UserError(f"{model_name} takes the sizes of its towers from its files; name their folder as pretrained")
    if pretrained in (None, PUBLISHED):
        published = model_name in DENSE_MODELS
        return Weights(model_name, PUBLISHED if published else None, tag=PUBLISHED if published else None)
    path = Path(pretrained)
    return Weights(model_name, str(path.parent if path.is_file() else path))


def _expand(name: str | os.PathLike) -> str:
    # A Path would drop the ./ by which a file is no tag.
    path = os.path.expanduser(os.fspath(name))  # noqa: PTH111
    if len(path) > 4000 or max(map(len, os.fsencode(path).split(b"/"))) > 255:
        raise UserError(f"{path[:100]}… is too long for a model or its weights; give a shorter path")
    return path


def _described_beside(pretrained: str) -> tuple[str | None, str | None]:
    """Model name and ``pretrained`` for a folder that has a model's configuration, or a file in one."""
    path = Path(pretrained)
    folder = path if path.is_dir() else path.parent
    if not path.exists() or known_tag_of(CHECKPOINTS["CLIP", "ViT-B/16"][0], pretrained) or layout(folder) is None:
        return None, pretrained
    return f"local-dir:{folder}", None if path.is_dir() else pretrained


def _full_name(name: str, known: str | None) -> str:
    """A model's name as OpenCLIP spells it; a folder becomes ``local-dir:``."""
    schema, _, place = name.partition(":")
    if schema == "local-dir":
        return f"local-dir:{_expand(place)}"
    if schema == "hf-hub" or name == known or name in DENSE_MODELS:
        return name
    if ":" not in name and open_clip.get_model_config(name.replace("/", "-")) is not None:
        return name.replace("/", "-")
    if Path(name).is_dir():
        return f"local-dir:{name}"
    raise UserError(
        f"unknown model {name!r}; open_clip.list_models() has the names, open_clip.add_model_config adds yours, and a "
        f"folder or hf-hub:OWNER/NAME is one as well, and so are {', '.join(DENSE_MODELS)}"
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
    tags = open_clip.list_pretrained_tags_by_model(model_name) if tag is None else [tag]
    return {open_clip.get_pretrained_cfg(model_name, one).get(name, default) for one in tags}


def _activation(model_name: str, tag: str | None, pretrained: str) -> bool | None:
    """Whether weights were trained with QuickGELU, as their tag or all tags of the model say."""
    own = (open_clip.get_model_config(model_name) or {}).get("quick_gelu", False)
    said = values_of_tags(model_name, tag, "quick_gelu", own)
    if len(said) > 1 and os.path.exists(pretrained):  # noqa: PTH110 (what is not there is an error soon)
        warnings.warn(
            f"weights of {model_name} exist with QuickGELU (OpenAI, MetaCLIP, DFN) and with GELU (LAION); {pretrained} "
            "does not say which, so GELU is taken: set quick_gelu (--quick-gelu, --no-quick-gelu)",
            stacklevel=3,
        )
    return said.pop() if len(said) == 1 else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: the file cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no JSON object; download it again")
    return content


def layout(folder: Path) -> str | None:
    """The file that describes the model in a folder, :data:`OPEN_CLIP_CONFIG` or :data:`HUGGING_FACE_CONFIG`;
    :data:`DENSE_LAYOUT` for the files of a model of :mod:`clearclip.dense_models`; None for all others.
    """
    if folder_family(folder) is not None:
        return DENSE_LAYOUT
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return OPEN_CLIP_CONFIG
    path = folder / HUGGING_FACE_CONFIG
    return HUGGING_FACE_CONFIG if path.is_file() and read_json(path).get("model_type") in HUGGING_FACE_TYPES else None


def model_folder(name: str) -> Path | None:
    """Where a ``local-dir:`` or ``hf-hub:`` model has its configuration, fetched if need be; None for other names.

    Raises:
        UserError: it cannot be fetched, or is none that is known here.
    """
    schema, _, place = name.partition(":")
    if schema not in ("local-dir", "hf-hub"):
        return None
    folder = Path(place)
    if schema == "hf-hub":
        folder = fetch(place, OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG, remedy=_remedy(name)).parent
    if layout(folder) is None:
        raise UserError(
            f"{place} has neither {OPEN_CLIP_CONFIG} (OpenCLIP's layout) nor the {HUGGING_FACE_CONFIG} of a CLIPModel "
            "or SiglipModel (Hugging Face's); name an OpenCLIP model, and a file in it as pretrained"
        )
    return folder


def _remedy(name: str) -> str:
    return f"download the repository elsewhere and name its folder: local-dir:{name.rpartition('/')[2]}"


def _by_hand(name: str, tag: str, repository: str, file: str, quick_gelu: bool) -> str:
    """What to do where a tag's file cannot be fetched. Its name does not say the activation."""
    return (
        f"download {hf_hub_url(repository, file)} elsewhere and give it with its activation, "
        f"{'QuickGELU' if quick_gelu else 'GELU'}: --model {name} --pretrained {file} "
        f"--{'' if quick_gelu else 'no-'}quick-gelu (demo.py, analyze.py), or --cfg-options model.pretrained={file} "
        f"model.pretrained_tag={tag} (eval.py, eval_all.py); docs/weights.md has more"
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
        return list(dict.fromkeys(dense_files(name, pretrained).values()))
    cfg = None if pretrained is None or ":" in name else open_clip.get_pretrained_cfg(name, pretrained)
    if cfg:
        repository, _, file = cfg["hf_hub"].rpartition("/")
        files = [file] if file else OPEN_CLIP_FILES
        remedy = _by_hand(name, pretrained, repository, files[0], cfg.get("quick_gelu"))
        return [fetch(repository, *files, remedy=remedy)]
    if pretrained is None and name.startswith("hf-hub:"):
        usual = OPEN_CLIP_FILES if layout(model_folder(name)) == OPEN_CLIP_CONFIG else HUGGING_FACE_FILES
        usual = [*usual, *(f"{file}.index.json" for file in usual)]
        get = partial(fetch, name.partition(":")[2], remedy=_remedy(name))
        return _shards(get(*usual), get)
    path = model_folder(name) if pretrained is None else Path(pretrained)
    if path.is_dir():
        path = _checkpoint_in(path)
    if path.is_file():
        return _shards(path, path.parent.joinpath)
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
    if Path(pretrained).suffix in SUFFIXES or os.sep in pretrained:
        raise UserError(f"{pretrained}: there is no such file; check its name, or give a tag of {name} ({tags})")
    raise UserError(f"pretrained={pretrained!r} is neither a file nor a folder nor a tag of {name} (tags: {tags})")


def _checkpoint_in(folder: Path) -> Path:
    usual = [*OPEN_CLIP_FILES, *HUGGING_FACE_FILES] if layout(folder) != HUGGING_FACE_CONFIG else HUGGING_FACE_FILES
    named = [folder / file for name in usual for file in (name, f"{name}.index.json")]
    found = [path for path in named if path.is_file()][:1] or list(folder.glob("*.index.json"))
    if not found:
        files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
        found = [path for path in files if not path.stem.startswith(TRAINING)]
    if len(found) == 1:
        return found[0]
    listed = f"several ({', '.join(path.name for path in found[:5])})" if found else f"none ({', '.join(usual)})"
    raise UserError(f"which weights in {folder}? It has {listed}; give the file as pretrained")


def _shards(path: Path, get: Callable[[str], Path]) -> list[Path]:
    """The file itself, or those that it lists if it is the index of shards."""
    if path.suffix != ".json":
        return [path]
    listed = read_json(path).get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{path} does not list files beside it as shards; download it again")
    shards = [get(name) for name in names]
    if lacking := [shard.name for shard in shards if not shard.is_file()]:
        raise UserError(f"{path.parent} lacks the shards {', '.join(lacking[:5])}; download them as well")
    return shards

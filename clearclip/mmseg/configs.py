"""Configs: read, override, and say what in them changes a result."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from clearclip.checkpoints import DEFAULT
from clearclip.errors import UserError, check_number
from clearclip.methods import choose_method
from clearclip.miniature import DIRECTORY as MINIATURE
from clearclip.model import ClearCLIP
from clearclip.text import ClassWords

_SWITCHES = ("attention", "residual", "ffn", "alpha")
#: What this package itself reads of a config, outer parts first. The dicts must be there.
_TYPES = {
    "model": dict,
    "test_dataloader": dict,
    "test_dataloader.dataset": dict,
    "test_dataloader.batch_size": int,
    "test_dataloader.num_workers": int,
    **{f"test_dataloader.dataset.{name}": str for name in ("ann_file", "img_suffix", "seg_map_suffix")},
    "test_dataloader.dataset.pipeline": list,
    "dataset_name": str,
    "expected_images": int,
}


def load_config(path: str | Path, overrides: dict[str, Any] | None = None, data_root: str | None = None) -> Config:
    """Read a config file (a Python file, which is executed) and override parts of it.

    Args:
        path: such as ``config/cfg_voc21.py``.
        overrides: dotted names to values, as ``--cfg-options`` gives them.
        data_root: the dataset's root, or a folder that holds it under its usual name. Without it, the environment
            variable ``CLEARCLIP_DATA`` replaces a leading ``data``.

    Raises:
        UserError: the file is missing or broken, or an override fits nothing.
    """
    if not Path(path).is_file():
        raise UserError(f"config {path} does not exist; the configs lie in config/ (cfg_voc21.py, cfg_miniature.py, …)")
    try:
        cfg = Config.fromfile(str(path))
    except Exception as error:  # a config is executed: whatever its code raises
        raise UserError(
            f"config {path} cannot be read ({type(error).__name__}: {error}); mend it, it must be a Python file like "
            "those in config/"
        ) from error
    try:
        cfg.merge_from_dict(overrides or {})
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"--cfg-options {overrides} does not fit the config: {error}") from error
    for name, kind in _TYPES.items():
        _check_type(cfg, path, name, kind)
    dataset = cfg.test_dataloader.dataset
    if not isinstance(dataset.get("data_root"), str):
        raise UserError(f"config {path}: the dataset needs a data_root; give --data-root")
    dataset.data_root = _locate(dataset.data_root, data_root)
    return cfg


def _check_type(cfg: Config, path: str | Path, name: str, kind: type) -> None:
    value = cfg
    for part in name.split("."):
        value = value.get(part)
    if value is None and kind is dict:
        raise UserError(f"config {path} has no {name!r}; inherit from base_config.py as the others do")
    if value is not None and not isinstance(value, kind):
        raise UserError(f"config {path}: {name} must be a {kind.__name__}, not {value!r}; see config/base_config.py")


def _locate(configured: str, given: str | None) -> str:
    """Where the dataset lies."""
    usual = Path(configured)
    inner = Path(*usual.parts[1:]) if not usual.is_absolute() and usual.parts[:1] == ("data",) else None
    if given is not None:
        below = Path(given) / inner if inner is not None else None
        return str(below) if below is not None and below.is_dir() else given
    if inner is not None and os.environ.get("CLEARCLIP_DATA"):
        return str(Path(os.environ["CLEARCLIP_DATA"]) / inner)
    return configured


def dataset_name(cfg: Config) -> str:
    """The benchmark's name: ``dataset_name`` of the config, or the file's own."""
    return cfg.get("dataset_name") or Path(cfg.filename).stem.removeprefix("cfg_")


def requested_settings(cfg: Config, limit: int | None = None) -> dict[str, Any]:
    """What a config asks for, as plain data, as far as it changes a result and is known before a model is loaded.

    Args:
        cfg: the config.
        limit: number of images, None for all.

    Raises:
        UserError: a method, model or names file that does not exist.
    """
    model = cfg.model.to_dict()
    method = choose_method(
        **{name: model[name] for name in ("model_type", "ignore_residual", *_SWITCHES) if name in model}
    )
    own_name = model.get("model_name")
    return {
        "clip_type": own_name or model.get("clip_type") or "CLIP",
        "vit_type": "" if own_name else model.get("vit_type") or "ViT-B/16",
        "model_type": model.get("model_type", "ClearCLIP"),
        "pretrained": model.get("pretrained", DEFAULT),
        "checkpoint": _file_identity(model),
        "quick_gelu": model.get("quick_gelu"),
        "attention": method.attention,
        "residual": method.residual,
        "ffn": method.ffn,
        "alpha": method.alpha,
        "normalization": model.get("normalization", "openai"),
        "prob_thd": check_number("prob_thd", model.get("prob_thd", 0), 0, 1),
        "logit_scale": check_number("logit_scale", model.get("logit_scale", 50), 0, float("inf")),
        "slide_crop": model.get("slide_crop", 448),
        "slide_stride": model.get("slide_stride", 224),
        "words": _words_identity(model),
        "dataset": dataset_name(cfg),
        "resize": _resize_of(cfg),
        "limit": limit,
    }


def result_settings(cfg: Config, model: ClearCLIP, limit: int | None = None) -> dict[str, Any]:
    """:func:`requested_settings` and what only the loaded model knows: precision, and the weights themselves."""
    return {**requested_settings(cfg, limit), "precision": model.precision, "weights": _weights_identity(model)}


def class_words(model: dict[str, Any]) -> ClassWords:
    """The class words of a ``model`` part."""
    if model.get("class_names") is not None:
        return ClassWords.parse(model["class_names"], "class_names")
    if model.get("name_path") is None:
        raise UserError("the config names no classes; give model.name_path or model.class_names")
    return ClassWords.read(model["name_path"])


def _words_identity(model: dict[str, Any]) -> str:
    return hashlib.sha256(repr(class_words(model).classes).encode()).hexdigest()[:12]


def _file_identity(model: dict[str, Any]) -> str:
    """A short hash of a checkpoint that lies in a file; empty for a tag, which names its weights."""
    name = str(model.get("model_name") or "")
    folder = (
        MINIATURE if model.get("clip_type") == "Miniature" or name == "miniature" else name.removeprefix("local-dir:")
    )
    pretrained = model.get("pretrained", DEFAULT)
    if pretrained not in (None, DEFAULT):
        files = [Path(str(pretrained))]
    else:
        files = sorted(Path(folder).glob("*.safetensors")) + sorted(Path(folder).glob("*.bin")) if folder else []
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            with open(file, "rb") as opened:
                while chunk := opened.read(1 << 24):
                    digest.update(chunk)
    return digest.hexdigest()[:12] if any(file.is_file() for file in files) else ""


def _weights_identity(model: ClearCLIP) -> str:
    """A short hash of the image tower's weights as loaded."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.image_encoder.state_dict().items()):
        # Two moments in float64 tell weights apart without sending gigabytes through a hash.
        moments = float(tensor.double().sum()), float(tensor.double().norm())
        digest.update(repr((name, tuple(tensor.shape), moments)).encode())
    return digest.hexdigest()[:12]


def _resize_of(cfg: Config) -> str:
    steps = cfg.test_dataloader.dataset.get("pipeline", [])
    return " ".join(str(tuple(step["scale"])) for step in steps if step["type"] == "Resize" and "scale" in step)

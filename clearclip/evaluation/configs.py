"""Configs: read, override, and say what in them changes a result."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from clearclip.errors import UserError

#: Parts of ``model`` that change how a result is computed but not what it is.
_NO_EFFECT = {"type", "device", "window_batch", "cached", "keep_logits", "name_path", "data_preprocessor", "init_cfg"}


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
    except (
        SyntaxError,
        ConfigParsingError,
        ImportError,
        KeyError,
        AttributeError,
        TypeError,
        ValueError,
        OSError,
    ) as error:
        raise UserError(f"config {path} cannot be read: {type(error).__name__}: {error}") from error
    except NameError as error:
        raise UserError(f"config {path} cannot be read: {error}") from error
    for part in ("model", "test_dataloader"):
        if part not in cfg:
            raise UserError(f"config {path} has no {part!r}; inherit from base_config.py as the others do")
    try:
        cfg.merge_from_dict(overrides or {})
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"--cfg-options {overrides} does not fit the config: {error}") from error
    dataset = cfg.test_dataloader.dataset
    if not isinstance(dataset.get("data_root"), str):
        raise UserError(f"config {path}: the dataset needs a data_root; give --data-root")
    dataset.data_root = _locate(dataset.data_root, data_root)
    return cfg


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


def result_settings(cfg: Config, model: Any, limit: int | None) -> dict[str, Any]:
    """Everything that changes a result, as plain data: the row of the workbook, and what a resume must match.

    Args:
        cfg: the config.
        model: the :class:`~clearclip.ClearCLIP` built from it.
        limit: number of images, None for all.
    """
    method = model.image_encoder.method
    settings = {name: value for name, value in cfg.model.to_dict().items() if name not in _NO_EFFECT}
    settings.pop("class_names", None)
    if settings.get("model_name"):  # it overrides the two
        settings.update(clip_type=model.weights.label, vit_type="")
    settings.update(
        clip_type=settings.get("clip_type") or "CLIP",
        vit_type="ViT-B/16" if settings.get("vit_type") is None else settings["vit_type"],
        model_type=settings.get("model_type", "ClearCLIP"),
        model_name=model.weights.model_name if not _is_local(model.weights.model_name) else model.weights.label,
        pretrained=model.weights.pretrained or "",
        weights=weights_identity(model),
        attention=method.attention,
        residual=method.residual,
        ffn=method.ffn,
        alpha=method.alpha,
        normalization=settings.get("normalization", "openai"),
        precision=model.precision,
        prob_thd=model.prob_thd,
        logit_scale=model.logit_scale,
        slide_crop=model.slide_crop,
        slide_stride=model.slide_stride,
        words=words_identity(cfg),
        dataset=dataset_name(cfg),
        pipeline=_resize_of(cfg),
        limit=limit,
    )
    return settings


def words_identity(cfg: Config) -> str:
    """A short hash of the class names in use."""
    from clearclip.text import ClassWords

    model = cfg.model
    if model.get("class_names") is not None:
        words = ClassWords.parse(model.class_names)
    else:
        words = ClassWords.read(model.name_path)
    return hashlib.sha256(repr(words.classes).encode()).hexdigest()[:12]


def weights_identity(model: Any) -> str:
    """A short hash of the image tower's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.image_encoder.state_dict().items()):
        digest.update(name.encode())
        # Sums in float64 tell weights apart without reading gigabytes through a hash.
        digest.update(repr((tuple(tensor.shape), float(tensor.double().sum()), float(tensor.double().norm()))).encode())
    return digest.hexdigest()[:12]


def _is_local(model_name: str) -> bool:
    return model_name.startswith("local-dir:")


def _resize_of(cfg: Config) -> str:
    scales = [
        str(step.get("scale")) for step in cfg.test_dataloader.dataset.get("pipeline", []) if step["type"] == "Resize"
    ]
    return "resize " + " ".join(scales) if scales else "as is"

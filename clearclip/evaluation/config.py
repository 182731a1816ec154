"""Configs: read, override and check."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pprint import pformat
from typing import Any

from mmengine.config import Config
from mmseg.registry import MODELS

from clearclip.evaluation.datasets import plain_settings
from clearclip.evaluation.mmseg_import import mmseg_scope
from clearclip.evaluation.overrides import check_given_twice, check_overrides
from clearclip.evaluation.segmentor import ClearCLIPSegmentation, read_classes
from clearclip.model_settings import ModelSettings
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
#: The folder of the bundled configs: in the package where a wheel was installed, beside it in a clone.
CONFIGS = next(folder / "config" for folder in (_PACKAGE, _PACKAGE.parent) if (folder / "config").is_dir())
#: Arguments of the segmentor beside the options of a model.
SEGMENTOR_OPTIONS = (
    "type", "name_path", "class_names", "methods", "keep_logits", "data_preprocessor", "train_cfg", "test_cfg",
    "init_cfg",
)  # fmt: skip


@contextmanager
def building(what: str, overrides: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Build by MMSegmentation's registries; whatever it, MMEngine or OpenCLIP raises meanwhile becomes a UserError.

    Args:
        what: what is built, such as "config config/cfg_voc21.py".
        overrides: options that were overridden, which may be the cause.
    """
    try:
        with mmseg_scope():
            yield
    except UserError:
        raise
    except Exception as error:
        changed = f" with {', '.join(f'{name}={value!r}' for name, value in overrides.items())}" if overrides else ""
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{what}{changed} does not fit ({type(error).__name__}: {reason}); see config/base_config.py"
        ) from error


def load_config(path: str | Path, overrides: dict[str, Any] | None = None, data_root: str | None = None) -> Config:
    """Read a config file (a Python file, which is executed), override parts of it, and check it.

    Args:
        path: such as ``config/cfg_voc21.py``; the bundled configs are found from anywhere, also by the name alone.
        overrides: dotted names to values, as ``--cfg-options`` gives them.
        data_root: the dataset's root, or a folder that holds it under its usual name. Without it, the environment
            variable ``CLEARCLIP_DATA`` replaces a leading ``data``.

    Raises:
        UserError: the file is missing or broken, an override fits nothing, or a value is invalid.
    """
    bundled = CONFIGS / Path(path).name
    if not os.path.isfile(path) and Path(path).parent.name in ("", "config") and os.path.isfile(bundled):
        path = bundled
    if not os.path.isfile(path):  # False for a name that is too long, too
        raise UserError(
            f"config {str(path)[:400]} does not exist; the configs are in config/ (cfg_voc21.py, cfg_miniature.py, …)"
        )
    if Path(path).suffix not in (".py", ".json"):
        raise UserError(
            f"config {path}: a config is a Python file (.py), which is executed, or JSON; see config/base_config.py"
        )
    with building(f"config {path}"):
        cfg = Config.fromfile(str(path))
    with building(f"config {path}", overrides):
        overrides = overrides or {}
        file_values = cfg.to_dict()
        cfg.merge_from_dict(overrides)
        merged_values = cfg.to_dict()
        check_given_twice(overrides, data_root=data_root)
        for name in ("model", "test_dataloader", "test_dataloader.dataset"):
            value = cfg
            for part in name.split("."):
                value = value.get(part)
            if not isinstance(value, Mapping):
                raise UserError(f"config {path} has no {name!r} (a dict); inherit from base_config.py as the others do")
        if cfg.get("load_from"):
            raise UserError(f"config {path}: load_from is not used; give the weights as model.pretrained")
        for dataset in plain_settings(cfg.test_dataloader.dataset):
            if not isinstance(dataset.get("data_root"), str):
                raise UserError(f"config {path}: the dataset needs a data_root; give --data-root")
            dataset["data_root"] = _locate(dataset["data_root"], data_root)
        if cfg.model.get("data_preprocessor") is None and cfg.get("data_preprocessor"):  # as MMEngine's runner does
            cfg.model.data_preprocessor = cfg.data_preprocessor
        # Values are checked first: a misspelled one is worth more words than one without effect.
        model_settings(cfg)
        check_overrides(f"config {path}", merged_values, overrides, file_values)
    return cfg


def config_text(cfg: Config) -> str:
    """A config as a Python file that :func:`load_config` reads, everything it inherits and overrides resolved.

    It is what ``Config.dump`` writes, but for the formatter that takes a second to load.
    """
    values = {name: value for name, value in cfg.to_dict().items() if not name.startswith("_")}
    return "".join(f"{name} = {pformat(value, width=116, sort_dicts=False)}\n" for name, value in values.items())


def _locate(configured: str, given: str | None) -> str:
    """Where the dataset is."""
    usual = Path(configured).expanduser()
    inner = Path(*usual.parts[1:]) if not usual.is_absolute() and usual.parts[:1] == ("data",) else None
    base = given or os.environ.get("CLEARCLIP_DATA")
    if base is None or (given is None and inner is None):
        return str(usual)
    below = Path(base).expanduser() / (inner or "")
    return str(below if given is None or below.is_dir() else Path(given).expanduser())


def dataset_name(cfg: Config) -> str:
    """The benchmark's name: ``dataset_name`` of the config, or the file's own."""
    return str(cfg.get("dataset_name") or Path(cfg.filename or "config").stem.removeprefix("cfg_"))


def model_settings(cfg: Config) -> ModelSettings:
    """The options of the config's model.

    Raises:
        UserError: another kind of model, or an option that does not exist or is invalid.
    """
    model = cfg.model.to_dict()
    kind = model.get("type")
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, ClearCLIPSegmentation)):
        raise UserError(f"{cfg.filename}: model.type must be ClearCLIPSegmentation, not {model.get('type')!r}")
    return ModelSettings.from_options({name: value for name, value in model.items() if name not in SEGMENTOR_OPTIONS})


def class_words(cfg: Config) -> ClassWords:
    """The class words of a config's model.

    Raises:
        UserError: none, in two places, or a file that cannot be read.
    """
    return read_classes(cfg.model.get("name_path"), cfg.model.get("class_names"))

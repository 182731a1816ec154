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
def explaining_errors(subject: str, overrides: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Build by MMSegmentation's registries; whatever it, MMEngine or OpenCLIP raises meanwhile becomes a UserError.

    Args:
        subject: what is built, such as "config config/cfg_voc21.py".
        overrides: options that were overridden, which may be the cause.
    """
    try:
        with mmseg_scope():
            yield
    except UserError:
        raise
    except Exception as error:
        listed_overrides = ", ".join(f"{name}={value!r}" for name, value in (overrides or {}).items())
        with_overrides = f" with {listed_overrides}" if listed_overrides else ""
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{subject}{with_overrides} does not fit ({type(error).__name__}: {reason}); see config/base_config.py"
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
    with explaining_errors(f"config {path}"):
        cfg = _read_file(path)
    with explaining_errors(f"config {path}", overrides):
        overrides = overrides or {}
        file_values = cfg.to_dict()
        cfg.merge_from_dict(overrides)
        merged_values = cfg.to_dict()
        check_given_twice(overrides, data_root=data_root)
        for name in ("model", "test_dataloader", "test_dataloader.dataset"):
            value = cfg
            for key in name.split("."):
                value = value.get(key)
            if not isinstance(value, Mapping):
                raise UserError(f"config {path} has no {name!r} (a dict); inherit from base_config.py as the others do")
        # MMEngine would load a checkpoint into the model, which has weights of its own already.
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


def _read_file(path: str | Path) -> Config:
    """A config file with what it inherits.

    Raises:
        UserError: it inherits from a bundled config as if it lay beside that, as it does in a clone.
    """
    try:
        return Config.fromfile(str(path))
    except FileNotFoundError as error:
        bundled = CONFIGS / Path(str(error.filename)).name
        if not bundled.is_file():
            raise
        raise UserError(
            f"config {path}: there is no {bundled.name} beside it; inherit from the bundled one: "
            f"_base_ = {str(bundled)!r}"
        ) from error


def config_text(cfg: Config) -> str:
    """A config as a Python file that :func:`load_config` reads, everything it inherits and overrides resolved.

    It is what ``Config.dump`` writes, but for the formatter that takes a second to load.
    """
    values = {name: value for name, value in cfg.to_dict().items() if not name.startswith("_")}
    return "".join(f"{name} = {pformat(value, width=116, sort_dicts=False)}\n" for name, value in values.items())


def _locate(configured: str, data_root: str | None) -> str:
    """Where the dataset is: the folder that is named, that folder's usual subfolder, or where the config says."""
    usual_place = Path(configured).expanduser()
    # data/VOCdevkit/VOC2012 may be anywhere else as VOCdevkit/VOC2012.
    below_data = None
    if not usual_place.is_absolute() and usual_place.parts[:1] == ("data",):
        below_data = Path(*usual_place.parts[1:])
    if data_root is not None:
        named_folder = Path(data_root).expanduser()
        usual_subfolder = named_folder / (below_data or "")
        return str(usual_subfolder if usual_subfolder.is_dir() else named_folder)
    all_data = os.environ.get("CLEARCLIP_DATA")
    if all_data is None or below_data is None:
        return str(usual_place)
    return str(Path(all_data).expanduser() / below_data)


def dataset_name(cfg: Config) -> str:
    """The benchmark's name: ``dataset_name`` of the config, or the file's own."""
    return str(cfg.get("dataset_name") or Path(cfg.filename or "config").stem.removeprefix("cfg_"))


def model_settings(cfg: Config) -> ModelSettings:
    """The options of the config's model.

    Raises:
        UserError: another kind of model, or an option that does not exist or is invalid.
    """
    model = cfg.model.to_dict()
    segmentor = model.get("type")
    if isinstance(segmentor, str):
        segmentor = MODELS.get(segmentor)
    if not (isinstance(segmentor, type) and issubclass(segmentor, ClearCLIPSegmentation)):
        raise UserError(f"{cfg.filename}: model.type must be ClearCLIPSegmentation, not {model.get('type')!r}")
    return ModelSettings.from_options({name: value for name, value in model.items() if name not in SEGMENTOR_OPTIONS})


def class_words(cfg: Config) -> ClassWords:
    """The class words of a config's model.

    Raises:
        UserError: none, in two places, or a file that cannot be read.
    """
    return read_classes(cfg.model.get("name_path"), cfg.model.get("class_names"))

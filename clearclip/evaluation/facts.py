"""What the number of a run depends on, as plain data: computed here and nowhere else, before the first image.

A run's fingerprint is the hash of its facts. Resuming, "has a result" and the tables ask it, and nothing else.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, HOOKS, LOOPS, DefaultScope, Registry
from mmseg.registry import METRICS, MODELS, TRANSFORMS
from torch import nn

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import class_words, dataset_name
from clearclip.evaluation.datasets import entries, plain_datasets, plain_settings
from clearclip.methods import Method
from clearclip.miniature import SHA256 as MINIATURE_SHA256
from clearclip.model_settings import ModelSettings
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import code_digest, digest, hash_file, hash_files, plain, source_of, versions
from clearclip.utils.hub import cached_only
from clearclip.weights import CHECKPOINTS, RANDOM, Weights, find_checkpoint, model_folder

#: Arguments of datasets whose meaning is in the list of images, their content, and what the dataset says of itself.
_RESOLVED = {
    "type", "data_root", "data_prefix", "ann_file", "img_suffix", "seg_map_suffix", "indices", "filter_cfg", "metainfo",
    "ignore_index", "reduce_zero_label", "pipeline", "test_mode", "serialize_data", "lazy_init", "max_refetch",
}  # fmt: skip
#: Parts of a config that change how fast it runs, and what is printed and drawn.
_LOADING = {"dataset", "batch_size", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "timeout"}
_HARMLESS = {
    "CheckpointHook", "ConfusionMetric", "DefaultSampler", "DistSamplerSeedHook", "IterTimerHook", "LoggerHook",
    "ParamSchedulerHook", "RuntimeInfoHook", "SegVisualizationHook", "TestLoop",
}  # fmt: skip


def run_facts(
    cfg: Config,
    dataset: CheckedDataset,
    settings: ModelSettings,
    device: torch.device,
    precision: str,
    hooks: Sequence[Any] = (),
    model: nn.Module | None = None,
) -> dict[str, Any]:
    """The facts of a run, but for its method (:func:`method_facts`).

    Args:
        cfg: the config.
        dataset: its images.
        settings: of the model.
        device, precision: where and in what it is computed.
        hooks: MMEngine hooks beside the config's.
        model: see :func:`weights_facts`.
    """
    with DefaultScope.overwrite_default_scope("mmseg"):
        plains = plain_settings(cfg.test_dataloader.dataset)
        pipelines = [describe(one.get("pipeline", ()), TRANSFORMS) for one in plains]
        same = all(one == pipelines[0] for one in pipelines)
        reads: dict[str, Any] = {"pipeline": pipelines[0]} if same else {"pipelines": pipelines}
        if cfg.model.get("data_preprocessor") is not None:
            reads["preprocessor"] = describe(cfg.model.data_preprocessor, MODELS)
        return {
            "dataset": {"name": dataset_name(cfg), **_dataset_facts(dataset, plains)},
            "input": reads,
            "model": {"words": digest([list(one) for one in class_words(cfg).classes]), **plain(settings.facts())},
            "other": _other_facts(cfg, hooks),
            "weights": weights_facts(settings, model),
            "code": code_digest(),
            "environment": {"device": device.type, "precision": precision, **versions()},
        }


def method_facts(method: Method) -> dict[str, Any]:
    """The facts of a method: its label and options, and where it is none of this package's, its source."""
    kinds, inner = [type(method)], method
    while isinstance(inner := getattr(inner, "base", None), Method):
        kinds.append(type(inner))
    source = source_of(*kinds)
    return {"label": method.label, **_by_content(plain(method.settings)), **({"source": source} if source else {})}


def _by_content(options: Any) -> Any:
    """Options of a method, files among them by what they hold."""
    if isinstance(options, dict):
        return {name: _by_content(value) for name, value in options.items()}
    return {"file": hash_file(options)} if isinstance(options, str) and Path(options).is_file() else options


def describe(part: Any, registry: Registry) -> Any:
    """A part of a config, or a list of parts: of each its class, the arguments that are not the class's defaults, and
    the source of code that is neither MMSegmentation's nor this package's. Anything else as plain data.
    """
    if isinstance(part, list | tuple):
        return [describe(one, registry) for one in part]
    if not isinstance(part, Mapping) or "type" not in part:
        return plain(part)
    kind = part["type"]
    built = registry.get(kind) if isinstance(kind, str) else kind
    defaults: dict[str, Any] = {}
    for base in reversed(getattr(built, "__mro__", ())):
        with suppress(KeyError, TypeError, ValueError):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            defaults |= {one.name: one.default for one in parameters}
    options = {
        name: describe(value, registry)
        for name, value in part.items()
        if name not in ("type", "_scope_") and not (name in defaults and plain(defaults[name]) == plain(value))
    }
    source = source_of(built) if built is not None else None
    return {"type": getattr(built, "__name__", str(kind)), **options, **({"source": source} if source else {})}


def _dataset_facts(dataset: CheckedDataset, plains: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a dataset is after all its settings: the images and masks by content, and how labels are made of ids."""
    infos = [info for _, info in islice(entries(dataset.dataset), dataset.total)]

    def content(key: str) -> str:
        return hash_files(zip(dataset.names, (Path(info[key]) for info in infos), strict=False))

    parts = plain_datasets(dataset.dataset)
    # What makes other labels of a mask's ids than its classes in order.
    options = [{name: plain(value) for name, value in one.items() if name not in _RESOLVED} for one in plains]
    maps = [plain(one.label_map) for one in parts]
    labels = digest([maps, options]) if any((*maps, *options)) else ""
    found = {"labels": labels, "source": source_of(*map(type, parts))}
    return {
        "count": len(infos),
        "classes": len(dataset.metainfo["classes"]),
        "ignore_index": dataset.ignore_index,
        "reduce_zero_label": all(bool(one.reduce_zero_label) for one in parts),
        "images": content("img_path"),
        "masks": content("seg_map_path"),
        **{name: value for name, value in found.items() if value},
    }


def _other_facts(cfg: Config, hooks: Sequence[Any]) -> dict[str, Any]:
    """What else of a config an evaluation follows, where it is not the usual."""
    loader = {name: value for name, value in cfg.test_dataloader.items() if name not in _LOADING}
    evaluators = cfg.get("test_evaluator") or []
    parts = {
        "sampler": (DATA_SAMPLERS, [loader.pop("sampler", None)]),
        "evaluator": (METRICS, evaluators if isinstance(evaluators, list) else [evaluators]),
        "loop": (LOOPS, [cfg.get("test_cfg")]),
        "hooks": (HOOKS, [*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or [])]),
    }
    found: dict[str, Any] = {
        name: [one for one in describe(list(filter(None, listed)), registry) if not _harmless(one)]
        for name, (registry, listed) in parts.items()
    }
    kind = cfg.model.type
    found |= {
        "loader": plain(loader),
        "own hooks": [plain(hook) for hook in hooks if source_of(type(hook))],
        "env": {"cudnn_benchmark": True} if (cfg.get("env_cfg") or {}).get("cudnn_benchmark") else {},
        "randomness": plain(cfg.get("randomness")),
        "segmentor": source_of(MODELS.get(kind) if isinstance(kind, str) else kind),
    }
    return {name: value for name, value in found.items() if value}


def _harmless(described: Any) -> bool:
    """Whether it is a known part without an argument that could change a number."""
    if not isinstance(described, Mapping) or described.get("type") not in _HARMLESS:
        return False
    harmless = {"type", "shuffle", "round_up"} if described["type"] == "DefaultSampler" else set(described)
    return set(described) <= harmless - {"ignore_index", "fp16"} and not described.get("shuffle")


def weights_facts(settings: ModelSettings, model: nn.Module | None = None) -> dict[str, Any] | None:
    """The facts of a model's weights: whose they are, why we think so, and their bytes.

    ``origin`` is "published" for what this program fetched by its tag, or whose bytes are known (OpenAI's addresses
    carry a SHA-256; the miniature comes with the package), "stated" for a file whose tag the user names
    (``pretrained_tag``), else "file", "repository" or "random".

    Args:
        settings: which weights.
        model: the loaded model, of which weights that no file holds are taken.

    Returns:
        None where they are not on this machine and no model is given.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when the weights are loaded
        weights = settings.chosen_weights
    files = local_files(weights)
    if not files and model is None:
        return None
    origin, tag = _origin(weights, files, settings.pretrained_tag)
    rows = {known: row for row, known in reversed(CHECKPOINTS.items())} if origin in ("published", "stated") else {}
    clip_type, vit_type = rows.get((weights.model_name, tag), (None, None))
    in_folder = ":" in weights.model_name  # where it is among the files
    configuration = None if in_folder else plain(open_clip.get_model_config(weights.model_name))
    return {
        "clip_type": clip_type,
        "vit_type": vit_type,
        "model": "miniature" if weights.is_miniature else weights.model_name.partition("local-dir:")[0] or "local-dir",
        "tag": tag,
        "origin": origin,
        "bytes": digest([hash_file(path) for path in files]) if files else digest(plain(model.state_dict())),
        "configuration": digest([configuration, weights.quick_gelu]),
    }


def _origin(weights: Weights, files: Sequence[Path], stated: str | None) -> tuple[str, str | None]:
    """Where weights are from, and their tag."""
    name, pretrained = weights.model_name, weights.pretrained
    if pretrained == RANDOM:
        return "random", None
    if pretrained is None:
        bundled = weights.is_miniature and MINIATURE_SHA256 in map(hash_file, files)
        return ("published" if bundled else "repository" if name.startswith("hf-hub:") else "file"), None
    if pretrained == weights.tag or open_clip.get_pretrained_cfg(name, pretrained):  # whatever files there are
        return "published", weights.tag
    if not Path(pretrained).exists():
        return "repository", None
    for tag in open_clip.list_pretrained_tags_by_model(name):
        known = re.search(r"/([0-9a-f]{64})/", open_clip.get_pretrained_cfg(name, tag).get("url") or "")
        if known and [known[1]] == [hash_file(path) for path in files]:
            return "published", tag
    return ("stated", stated) if stated else ("file", None)


def local_files(weights: Weights) -> list[Path]:
    """The files on this machine that weights and their configuration are read from, without a download; empty where
    there are none, or where they are random.
    """
    name, pretrained = weights.model_name, weights.pretrained
    with suppress(UserError), cached_only():
        if name.startswith(("BLIP", "DINO")):
            path = Path(pretrained)
            if pretrained == weights.tag:
                path = Path(torch.hub.get_dir()) / "checkpoints" / f"{pretrained}.pth"
            return [one for one in (sorted(path.iterdir()) if path.is_dir() else [path]) if one.is_file()]
        found = find_checkpoint(weights)
        beside = sorted(model_folder(name).iterdir()) if ":" in name and found else []
        described = [path for path in beside if path.suffix in (".json", ".txt", ".model") and path.is_file()]
        return [*found, *(path for path in described if path not in found)]
    return []

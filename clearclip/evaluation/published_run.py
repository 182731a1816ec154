"""What a published number is made of. A run may fill a cell of a published table if

1. the program is a released one, unpatched, on tested versions of its packages, as pip installed them;
2. no code of the user's own took part: none imported, none in the config, every object that runs is ours or
   MMSegmentation's;
3. images, masks, pipeline, words, windows and thresholds are those that a bundled protocol builds, all images of it;
4. the weights are a table's, with the activation and normalisation that belong to them, unchanged since they were read;
5. the method is one of ours; one of the user's own has a row of its own.

Everything else is a run like any other: recorded and listed, with the sentences that are given here. An interpreter
that was patched from outside is trusted (SECURITY.md).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import CONFIGS, dataset_name, load_config
from clearclip.evaluation.datasets import entries, plain_datasets, plain_settings
from clearclip.evaluation.hooks import ProgressHook
from clearclip.evaluation.metric import ConfusionMetric
from clearclip.evaluation.own_code import is_own_method
from clearclip.evaluation.segmentor import ClearCLIPSegmentation
from clearclip.evaluation.weight_facts import LoadedModel
from clearclip.methods import METHODS, Method
from clearclip.results.protocols import difference_texts, nearest_protocol
from clearclip.results.table_definitions import tables
from clearclip.utils.installed_code import (
    TESTED_VERSIONS,
    ImportedCode,
    changed_packages,
    is_recorded,
    is_released,
    package_versions,
)
from clearclip.windows import POST_PROCESSINGS

#: Taken before any config or file of the user's is executed.
_IMPORTED_CODE = ImportedCode()
_RELEASED_METHODS, _RELEASED_STEPS = dict(METHODS), dict(POST_PROCESSINGS)
#: The parts of MMEngine's runner that may take part.
_RUNNER_PARTS = {
    "TestLoop", "JournaledEvaluator", "ConfusionMetric", "IoUMetric", "DefaultSampler", "BatchSampler",
    "CheckedDataset", "Replica",
    "CheckpointHook", "DistSamplerSeedHook", "IterTimerHook", "LoggerHook", "ParamSchedulerHook", "RuntimeInfoHook",
    "SegVisualizationHook", "PictureHook", "ProgressHook", "StopTogether",
}  # fmt: skip
_MODULES_OF_CONFIGS = ("clearclip.evaluation", "mmseg", "mmengine", "mmcv")
_CALLED_BY_CONFIGS = ("dict", "str")


@dataclass
class PreparedRun:
    """All that a run consists of, before its first image.

    Attributes:
        cfg: its config.
        dataset: the images.
        loaded: the model.
        methods: how the last blocks are computed.
        facts: of :mod:`clearclip.evaluation.run_facts`.
        imports: files of the user's own that were imported for it.
        segmentor, runner, metric, progress: what MMEngine runs.
        how: see the arguments of :func:`~clearclip.evaluation.run.evaluate`.
        reasons: for each method those of :func:`not_in_table_because`.
    """

    cfg: Config
    dataset: CheckedDataset
    loaded: LoadedModel
    methods: Sequence[Method]
    facts: dict[str, Any]
    imports: Sequence[str | Path]
    segmentor: ClearCLIPSegmentation
    runner: Runner
    metric: ConfusionMetric
    progress: ProgressHook
    how: Any
    reasons: list[list[str]] = field(default_factory=list)


def not_in_table_because(run: PreparedRun) -> list[list[str]]:
    """For each method of a run why its result fills no cell, in sentences; an empty list where it does.

    A method of the user's own has a row of its own, so that it is no reason that the code is the user's.
    """
    own_code = list(_own_code(run))
    # What is true of all methods of a run is found out once.
    common = [*_program(), *_data(run), *_weights(run.loaded)]
    reasons = []
    for method in run.methods:
        code = [] if is_own_method(method) else own_code
        reasons.append(list(dict.fromkeys([*common, *code, *_protocol(run, method)])))
    return reasons


def _program() -> Iterator[str]:
    if not is_released():
        yield "the source of ClearCLIP is not a released one"
    for name, version in package_versions().items():
        if version not in TESTED_VERSIONS[name]:
            yield f"{name} {version} is not among the tested versions ({', '.join(TESTED_VERSIONS[name])})"
    # Which of them is loaded depends on the order in which they were installed.
    if sum(name.startswith("opencv") for name in package_versions()) > 1:
        yield "several builds of OpenCV are installed over each other"
    for name in changed_packages():
        yield f"the files of {name} are not those that pip installed"
    patched = _IMPORTED_CODE.patched()
    if patched:
        yield f"code was replaced while the program ran: {', '.join(patched[:3])}"


def _own_code(run: PreparedRun) -> Iterator[str]:
    if not (_RELEASED_METHODS.items() <= METHODS.items() and _RELEASED_STEPS.items() <= POST_PROCESSINGS.items()):
        yield "a released method or post-processing was registered anew"
    for path in run.imports:
        yield f"own code was imported: {Path(path).name}"
    for name in (run.cfg.get("custom_imports") or {}).get("imports") or ():
        if not str(name).startswith(_MODULES_OF_CONFIGS):
            yield f"own code was imported by the config: {name}"
    # A config is Python: what it executes could change anything, and leave no trace.
    for path in config_files(run.cfg):
        if _has_code(path):
            yield f"the config {path.name} has code of its own; settings alone are data"
    for part in _running_parts(run):
        name = type(part).__name__
        if not is_recorded(type(part)):
            yield f"{name} is neither ClearCLIP's nor MMSegmentation's"
        attributes = getattr(part, "__dict__", {})
        if any(callable(value) and attribute in dir(type(part)) for attribute, value in attributes.items()):
            yield f"a function of {name} was replaced"
        if getattr(part, "_forward_hooks", None) or getattr(part, "_forward_pre_hooks", None):
            yield f"{name} has hooks of PyTorch"
    for part in _runner_parts(run.runner):
        if type(part).__name__ not in _RUNNER_PARTS:
            yield f"{type(part).__name__} is no part of a published evaluation"
    if run.facts["other"]:
        yield f"the config changes how the evaluation runs: {', '.join(run.facts['other'])}"


def config_files(cfg: Config) -> list[Path]:
    """The files that a config was read from."""
    if not cfg.filename:
        return []
    files, pending = [], [Path(cfg.filename).resolve()]
    while pending:
        path = pending.pop()
        files.append(path)
        bases = Config._get_base_files(str(path)) if path.suffix == ".py" and not _is_pure_python(path) else []
        pending += [(path.parent / base).resolve() for base in bases if "::" not in base]
    return files


def _is_pure_python(path: Path) -> bool:
    return "read_base" in path.read_text(encoding="utf-8")


def _has_code(path: Path) -> bool:
    """Whether a config does more than to name values: it calls another function than dict or str, or imports what is
    not this package's.
    """
    if path.suffix != ".py":
        return False
    try:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    except SyntaxError:
        return True
    return not all(map(_is_data, nodes))


def _is_data(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "clearclip"
    if isinstance(node, ast.stmt):
        return isinstance(node, ast.Assign | ast.AugAssign | ast.Expr)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _CALLED_BY_CONFIGS
    if isinstance(node, ast.Name):  # no other meaning for a name that may be called
        return not (isinstance(node.ctx, ast.Store) and node.id in _CALLED_BY_CONFIGS)
    return not isinstance(node, ast.Lambda)


def _running_parts(run: PreparedRun) -> Iterator[Any]:
    """The objects whose code computes the numbers."""
    model = run.loaded.model
    yield from model.modules()
    yield from filter(None, (model.text_encoder, run.loaded.settings.chosen_post_processing))
    for part in plain_datasets(run.dataset.dataset):
        yield from (part, *part.pipeline.transforms)
    yield from _runner_parts(run.runner)


def _runner_parts(runner: Runner) -> Iterator[Any]:
    loop = runner.test_loop
    yield from (loop, loop.dataloader.dataset, loop.dataloader.sampler, loop.dataloader.batch_sampler)
    yield from (loop.evaluator, *loop.evaluator.metrics, *runner.hooks, runner.model)


def _data(run: PreparedRun) -> Iterator[str]:
    """Compare images and masks with those that the bundled config names in the same folder."""
    dataset = dataset_name(run.cfg)
    if not (CONFIGS / f"cfg_{dataset}.py").is_file():
        return
    bundled = load_config(CONFIGS / f"cfg_{dataset}.py")
    bundled.test_dataloader.dataset.data_root = plain_settings(run.cfg.test_dataloader.dataset)[0]["data_root"]
    try:
        published = _entries(CheckedDataset(bundled.test_dataloader.dataset))
    except Exception:  # whatever MMSegmentation raises where a folder is laid out in another way
        published = None
    if published != _entries(run.dataset):
        yield "images, masks or the meaning of their ids are not those of the bundled config"


def _entries(dataset: CheckedDataset) -> list[Any]:
    """How ids become labels, and the image and mask of every entry."""
    rules = [(type(part), part.label_map, part.reduce_zero_label) for part in plain_datasets(dataset.dataset)]
    files = [(Path(info["img_path"]), Path(info["seg_map_path"])) for _, info in entries(dataset.dataset)]
    return [rules, files]


def _protocol(run: PreparedRun, method: Method) -> Iterator[str]:
    """In what the run differs from the nearest of the protocols of its dataset."""
    dataset = dataset_name(run.cfg)
    # Vanilla CLIP was published with a threshold of its own on VOC21.
    rows = [row for table in tables().values() for row in table.rows if row.label == method.label]
    row_settings = [{}, *(row.settings_for(dataset) for row in rows)]
    nearest = nearest_protocol(run.facts, row_settings)
    if nearest is None:
        yield f"no published protocol is for {dataset}"
    else:
        yield from difference_texts(*nearest)


def _weights(loaded: LoadedModel) -> Iterator[str]:
    if loaded.facts["origin"] not in ("published", "stated"):
        yield f"the weights are not published ones ({loaded.facts['origin']})"
    elif not loaded.facts["rows"]:
        yield "activation or normalisation are not those that belong to the weights"
    if loaded.changed():
        yield "the model was changed after its weights were read"

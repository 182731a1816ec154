"""What was published, as data: the rows of tables (``rows.csv``), protocols (``protocols.csv``), numbers
(``published.csv``).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any

from clearclip.utils.errors import UserError

WITHOUT_BACKGROUND = ("voc20", "context59", "coco_stuff164k", "city_scapes", "ade20k")
WITH_BACKGROUND = ("voc21", "context60", "coco_object")
BENCHMARKS = (*WITH_BACKGROUND, *WITHOUT_BACKGROUND)
#: The tables and their columns.
TABLES = {
    "benchmarks": BENCHMARKS,
    "2": WITHOUT_BACKGROUND,
    "background": WITH_BACKGROUND,
    "ablation": WITHOUT_BACKGROUND,
    "family": BENCHMARKS,
    "backbones": WITHOUT_BACKGROUND,
    "large": ("pc459", "ade847"),
    "remote": ("openearthmap", "loveda", "isaid", "potsdam", "vaihingen", "uavid", "udd5", "vdd"),
}
#: Those whose rows are not for ViT-L/14 unless that is asked for, and those that show the mean of a row.
_BASE_ONLY = ("benchmarks", "ablation", "family", "large", "remote")
_AVERAGED = ("2", "background", "ablation", "backbones", "remote")
MINIATURE_VIT = "Miniature/8"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: the system, the switches of an ablation, or the tag of a backbone's weights.
        clearclip: "yes", "no", or "" where the column has no meaning.
        clip_type, vit: whose weights, and their size; for a backbone "", and its name in OpenCLIP.
        method: how the last blocks are computed, as ``build_method`` takes it.
        label: the label of that method, by which records are known.
    """

    name: str
    clearclip: str
    clip_type: str
    vit: str
    method: str
    label: str

    @property
    def naming(self) -> dict[str, str]:
        """The options of a model that name the row's weights."""
        if not self.clip_type:
            return {"model_name": self.vit, "pretrained": self.name}
        return {"clip_type": self.clip_type, "vit_type": self.vit}

    @property
    def system(self) -> str:
        """The name, and whether ClearCLIP is added."""
        return self.name + (" + ClearCLIP" if self.clearclip == "yes" else "")

    def prob_thd(self, dataset: str) -> float | None:
        """The threshold where it is not the protocol's: vanilla CLIP on VOC21 was published with another one."""
        return 0.2 if dataset == "voc21" and (self.name, self.clearclip) == ("CLIP", "no") else None


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is evaluated. ``resize`` is "LONGxSHORT" or empty; ``labels`` a hash of how ids become
    classes, where they are not the classes in order; ``data`` one of images and masks, where these are known;
    ``model_options`` has further options of the model, and ``methods`` options of methods by the method's name, as
    their labels show them.
    """

    protocol: str
    dataset: str
    title: str
    images: int
    classes: int
    names_file: str
    words: str
    ignore_index: int
    reduce_zero_label: bool
    resize: str
    crop: int
    stride: int
    logit_scale: float
    prob_thd: float
    post: str | None
    model_options: dict[str, Any]
    methods: dict[str, str]
    labels: str
    data: str

    @property
    def scale(self) -> list[int]:
        """Of the resize: long and short side in pixels, or empty."""
        return [int(side) for side in self.resize.split("x")] if self.resize else []

    @property
    def model(self) -> dict[str, Any]:
        """The options of the model, by their names in a config, but for the words."""
        windows = {"slide_crop": self.crop, "slide_stride": self.stride}
        readout = {"logit_scale": self.logit_scale, "prob_thd": self.prob_thd, "post": self.post}
        return {**windows, **readout, **self.model_options}

    def label(self, method: str) -> str:
        """The label of a method with the options that it has here: "NACLIP + RCS" to "NACLIP + RCS (lambda_r=0.4)"."""
        return " + ".join(f"{one} ({self.methods[one]})" if one in self.methods else one for one in method.split(" + "))

    @property
    def options(self) -> dict[str, dict[str, float]]:
        """Of methods, by the method's name."""
        pairs = {name: [one.split("=") for one in text.split(", ")] for name, text in self.methods.items()}
        return {name: {key: float(value) for key, value in found} for name, found in pairs.items()}

    def matches(self, facts: Mapping[str, Any], row: Row | None = None) -> bool:
        """Whether a run with these facts was made by this protocol, whatever its weights and method.

        Args:
            facts: of a record.
            row: of a table, which may have a threshold of its own; backbones have the normalisation of their weights.
        """
        dataset, model = {**facts["dataset"]}, {**facts["model"]}
        data = f"{dataset.pop('images')} {dataset.pop('masks')}"
        if row is not None and not row.clip_type:
            model.pop("normalization", None)
        threshold = None if row is None else row.prob_thd(self.dataset)
        named = ("classes", "ignore_index", "reduce_zero_label", *(["labels"] if self.labels else []))
        resize = [{"type": "Resize", "scale": self.scale, "keep_ratio": True}] if self.resize else []
        first, *rest = ({"type": name} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs"))
        return (
            dataset == {"name": self.dataset, "count": self.images, **{name: getattr(self, name) for name in named}}
            and facts["input"] == {"pipeline": [first, *resize, *rest]}
            and model == {"words": self.words, **self.model, **({} if threshold is None else {"prob_thd": threshold})}
            and not facts["other"]
            and self.data in ("", data)
            and facts["environment"]["precision"] in ("fp16", "fp32")  # fp16 on a GPU, as published
        )


def _read(name: str) -> list[dict[str, str]]:
    text = resources.files("clearclip.results").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _model_options(text: str) -> dict[str, Any]:
    """Options of a model from their spelling in ``protocols.csv``, ``name=value; name=value``."""
    options: dict[str, Any] = {}
    for assignment in filter(None, text.split("; ")):
        name, _, value = assignment.partition("=")
        try:
            options[name] = json.loads(value)
        except ValueError:  # a word, which stands there without quotes
            options[name] = value
    return options


@lru_cache
def protocols() -> dict[tuple[str, str], Protocol]:
    """(protocol, dataset) → how it is evaluated."""
    kinds: dict[str, Any] = dict.fromkeys(("classes", "ignore_index", "crop", "stride"), int)
    kinds["images"] = lambda text: int(text or -1)  # where no source says how many, no run is known to be complete
    kinds |= {"logit_scale": float, "prob_thd": float, "reduce_zero_label": bool, "post": lambda text: text or None}
    kinds["model_options"] = _model_options
    kinds["methods"] = lambda text: dict(one.split(": ") for one in text.split("; ")) if text else {}
    lines = [{name: kinds.get(name, str)(text) for name, text in line.items()} for line in _read("protocols.csv")]
    return {(line["protocol"], line["dataset"]): Protocol(**line) for line in lines}


def protocol_names() -> list[str]:
    """The protocols; the first is that of ClearCLIP's paper."""
    return list(dict.fromkeys(name for name, _ in protocols()))


def find_protocol(name: str, dataset: str) -> Protocol:
    """How a benchmark is evaluated by a protocol.

    Raises:
        UserError: the protocol says nothing about it.
    """
    if (name, dataset) not in protocols():
        known = ", ".join(other for protocol, other in protocols() if protocol == name)
        raise UserError(f"protocol {name} is for {known}, not for {dataset}; leave --protocol out")
    return protocols()[name, dataset]


def title(dataset: str) -> str:
    """A benchmark's name as papers write it."""
    return next((one.title for (_, name), one in protocols().items() if name == dataset), dataset)


@lru_cache
def numbers() -> dict[tuple[str, ...], tuple[float, str]]:
    """(table, protocol, vit, row, clearclip, dataset) → mIoU in percent, and its source. "rerun" is a table, too: the
    numbers of a run that others made independently."""
    keys = ("table", "protocol", "vit", "row", "clearclip", "dataset")
    return {tuple(line[key] for key in keys): (float(line["miou"]), line["source"]) for line in _read("published.csv")}


@lru_cache
def labels() -> set[str]:
    """The labels of all rows' methods."""
    return {line["label"] for line in _read("rows.csv")}


def published(table: str, row: Row, dataset: str, protocol: str) -> tuple[float, str] | None:
    """The mIoU of a cell that was published under a protocol, in percent, and its source. "rerun" is a table, too."""
    tables = {"benchmarks": ("background", "2"), "family": ("family", "background", "2")}.get(table, (table,))
    names = [(row.name, row.clearclip or "no")]
    if row.name == "ClearCLIP":  # of the family; the paper's tables have another name for it
        names.append(("CLIP", "yes"))
    if table == "family" and protocol == "clearclip" and replace(row, clearclip=names[0][1]).prob_thd(dataset):
        return None  # published with a threshold of its own, and measured without
    keys = [(one, protocol, row.vit, *name, dataset) for one in tables for name in names]
    return next((numbers()[key] for key in keys if key in numbers()), None)


def table_rows(table: str, miniature: bool = False) -> list[Row]:
    """The rows of a table.

    Args:
        table: one of :data:`TABLES`.
        miniature: with the bundled model in place of the checkpoints: the rows that are methods, not other weights.
    """
    rows = [Row(**line) for line in _read("rows.csv") if line.pop("table") == table]
    if miniature:
        own = {"clip_type": "Miniature", "vit": MINIATURE_VIT}
        return [replace(row, **own) for row in rows if (row.clip_type, row.vit) == ("CLIP", "ViT-B/16")]
    return rows


#: The methods that are compared where none is named: CLIP, what came before ClearCLIP, and what came after it.
FAMILY = tuple(dict.fromkeys(row.name for row in table_rows("family")))


def select_rows(
    table: str, miniature: bool = False, names: Sequence[str] | None = None, vits: Sequence[str] | None = None
) -> list[Row]:
    """The rows of a table, narrowed.

    Args:
        table, miniature: see :func:`table_rows`.
        names: systems ("MaskCLIP"), with or without " + ClearCLIP"; None takes all.
        vits: sizes; None takes all, but of some tables ViT-B/16 only.

    Raises:
        UserError: an unknown name; lists the valid ones.
    """
    rows = table_rows(table, miniature)
    if not rows:
        raise UserError(f"the table {table} has no row of the miniature's; leave --miniature out")
    vits = [rows[0].vit] if vits is None and table in _BASE_ONLY else vits
    if vits is not None:
        _check_known("vit", vits, {row.vit for row in rows})
        rows = [row for row in rows if row.vit in vits]
    if names is not None:
        _check_known("row", names, {name for row in rows for name in (row.name, row.system)})
        # "CLIP" is both CLIP and CLIP + ClearCLIP; "CLIP + ClearCLIP" is only the latter.
        rows = [row for row in rows if row.name in names or row.system in names]
    return rows


def select_datasets(table: str, miniature: bool = False, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The columns of a table, narrowed.

    Raises:
        UserError: an unknown name; lists the valid ones.
    """
    known = ("miniature",) if miniature else TABLES[table]
    _check_known("dataset", names or (), set(known))
    return tuple(name for name in known if names is None or name in names)


def averaged(table: str, datasets: Sequence[str]) -> bool:
    """Whether a table shows the mean of each row."""
    return table in _AVERAGED and len(datasets) > 1


def _check_known(what: str, names: Sequence[str], known: set[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"unknown {what} {', '.join(map(repr, unknown))}; this table has {', '.join(sorted(known))}")

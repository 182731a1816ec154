"""Runs as they are recorded, made by hand: facts of a published protocol, but for what a test changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from clearclip.evaluation.metric import Evaluation
from clearclip.evaluation.scores import Scores
from clearclip.results.protocols import find_protocol
from clearclip.results.record import Record, parse_record
from clearclip.results.records import append
from clearclip.results.table_definitions import Row, find_table

#: ViT-B/16, CLIP + ClearCLIP.
CLEARCLIP = find_table("2").select_rows(["CLIP + ClearCLIP"], ["ViT-B/16"])[0]
#: What stands for an argument of :func:`facts_of` that removes a fact.
REMOVED = object()


def find_row(table: str, system: str, vit: str = "ViT-B/16", miniature: bool = False) -> Row:
    """A row of a table by its system."""
    (row,) = find_table(table, miniature).select_rows([system], None if miniature else [vit])
    return row


def facts_of(dataset: str, row: Row = CLEARCLIP, protocol: str = "clearclip", **changes: Any) -> dict[str, Any]:
    """The facts of a complete run by a protocol, but for ``changes``: part__name=value."""
    how = find_protocol(protocol, dataset)
    images, _, masks = how.data.partition(" ")
    resize = [{"type": "Resize", "scale": how.scale, "keep_ratio": True}] if how.scale else []
    steps = [{"type": name} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]
    facts: dict[str, Any] = {
        "dataset": {
            "name": dataset,
            "count": how.images,
            "classes": how.classes,
            "ignore_index": how.ignore_index,
            "reduce_zero_label": how.reduce_zero_label,
            "images": images,
            "masks": masks,
        },
        "input": {"pipeline": [steps[0], *resize, *steps[1:]]},
        "model": {"words": how.words, "post": None, **how.model, **row.settings_for(dataset)},
        "other": {},
        "weights": {"clip_type": row.clip_type, "vit_type": row.vit, "model": "m", "tag": "t", "origin": "published"},
        "method": {"label": how.label(row.label)},
        "code": "1",
        "environment": {"device": "cpu", "precision": "fp32"},
    }
    if how.labels:
        facts["dataset"]["labels"] = how.labels
    for name, value in changes.items():
        part, _, key = name.partition("__")
        facts[part] = {**facts[part], key: value}
        if value is REMOVED:
            del facts[part][key]
    return facts


def evaluation(
    dataset: str = "voc20",
    hits: int = 809,
    row: Row = CLEARCLIP,
    protocol: str = "clearclip",
    failures: Any = (),
    **changes: Any,
) -> Evaluation:
    """An evaluation of two classes with mIoU hits / 20, by a protocol but for ``changes``."""
    confusion = np.array([[hits, 1000 - hits], [0, 0]]) if hits < 1000 else np.array([[1000, 0], [0, 0]])
    return Evaluation(
        classes=["a", "b"],
        scores=Scores(confusion),
        images=10,
        failures=dict(failures),
        seconds=2,
        images_per_second=5,
        facts=facts_of(dataset, row, protocol, **changes),
    )


def append_run(results: Path, *arguments: Any, **options: Any) -> Record:
    """Record an evaluation beside a workbook."""
    (record,) = append([evaluation(*arguments, **options).record], results)
    return record


def make_record(*arguments: Any, **options: Any) -> Record:
    """A record that no file has."""
    return parse_record(json.loads(json.dumps(evaluation(*arguments, **options).record)))

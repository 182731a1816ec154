"""Which record belongs in which cell: weights, method and every setting are compared with what was published."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from clearclip.results.protocols import Difference, find_protocol, protocols
from clearclip.results.record import Record
from clearclip.results.table_definitions import Row, published_labels, tables

#: Where weights may come from to fill a published cell: fetched by their tag, or stated by the user and marked.
PUBLISHED_ORIGINS = ("published", "stated")
#: What stands for the protocol of a run that was made by none.
NO_PROTOCOL = "other"


def belongs(record: Record, row: Row, dataset: str, protocol: str) -> bool:
    """Whether a record is of a row's weights and method, and made on a dataset by a protocol, to the last setting."""
    # Names are compared first: most records are of other cells.
    if record.dataset != dataset or (protocol, dataset) not in protocols():
        return False
    if record.method != protocol_label(row, dataset, protocol):
        return False
    # A row of the user's own takes every complete run; why that fills no published cell stands in the list of runs.
    may_be_shown = record.is_complete if row.is_own else record.fills_cells
    return may_be_shown and not cell_differences(record, row, protocol)


def cell_differences(record: Record, row: Row, protocol: str) -> list[Difference]:
    """In what a run differs from what a row shows of its dataset, to the last setting.

    The reasons that the record itself has (:attr:`Record.fills_cells`) are not among them.
    """
    how = find_protocol(protocol, record.dataset)
    # Rows of the paper normalise with OpenAI's mean and standard deviation, other backbones with their own.
    settings = how.differences(record.facts, row.settings_for(record.dataset), any_normalization=not row.clip_type)
    return row_differences(record, row, protocol) + settings


def row_differences(record: Record, row: Row, protocol: str) -> list[Difference]:
    """In what a run's weights and method differ from those of a row."""
    differences = []
    weights = record.facts["weights"]
    if not has_weights(record, row) or weights["origin"] not in PUBLISHED_ORIGINS:
        measured = f"{record.weights or 'unknown'} ({weights['origin']})"
        differences.append(Difference("weights", measured, " ".join(row.weights.values())))
    label = protocol_label(row, record.dataset, protocol)
    if is_own_run(record, protocol) and not row.is_own:
        differences.append(Difference("method", f"{record.method}, by code or options of your own", label))
    elif row.is_own and not is_own_run(record, protocol):
        differences.append(Difference("method", f"{record.method}, none of your own", label))
    elif record.method != label:
        differences.append(Difference("method", record.method, label))
    return differences


def has_weights(record: Record, row: Row) -> bool:
    """Whether a run's weights have the names of a row's, wherever they come from."""
    weights = record.facts["weights"]
    # Rows of the paper are known by clip_type and size, other backbones by OpenCLIP's name and tag.
    keys = ("clip_type", "vit_type") if row.clip_type else ("model", "tag")
    return [weights.get(key) for key in keys] == list(row.weights.values())


def is_own_run(record: Record, protocol: str) -> bool:
    """Whether no published row has a run's method: it is of the user's own code, or one of ours with other options."""
    return has_own_code(record) or record.method not in _published_labels_by(protocol, record.dataset)


def has_own_code(record: Record) -> bool:
    """Whether code of the user's own took part in a run."""
    # Earlier versions noted the source of a method among its facts.
    return bool(record.facts.get("own code")) or "source" in record.facts["method"]


def protocol_label(row: Row, dataset: str, protocol: str) -> str:
    """The label of a row's method with the options that a protocol gives it on a dataset."""
    return find_protocol(protocol, dataset).label(row.label)


@lru_cache
def _published_labels_by(protocol: str, dataset: str) -> frozenset[str]:
    """The labels that the methods of all tables' rows have on a dataset by a protocol."""
    how = protocols().get((protocol, dataset))
    if how is None:
        return frozenset()
    return frozenset(how.label(label) for label in published_labels())


def protocol_of(record: Record) -> str:
    """The protocol by which a run was made, or "other", and whether images were skipped."""
    if record.remark:
        return NO_PROTOCOL
    name = _protocol_name(record)
    return f"{name}, images skipped" if record.skipped else name


def _protocol_name(record: Record) -> str:
    """The first protocol whose settings a run has, or those that a row of its method was published with."""
    row_settings = [{}, *_settings_of_rows(record.method, record.dataset)]
    # As in :func:`cell_differences`: backbones beside the paper's normalise with their own mean and deviation.
    any_normalization = not record.facts["weights"].get("clip_type")
    for (name, dataset), protocol in protocols().items():
        if dataset != record.dataset:
            continue
        for settings in row_settings:
            if protocol.matches(record.facts, settings, any_normalization):
                return name
    return NO_PROTOCOL


@lru_cache
def _settings_of_rows(label: str, dataset: str) -> list[Mapping[str, Any]]:
    """The settings with which rows of a method were published on a dataset, where they are not their protocol's."""
    settings = []
    for table in tables().values():
        for row in table.rows:
            if row.label == label and row.settings_for(dataset):
                settings.append(row.settings_for(dataset))
    return settings

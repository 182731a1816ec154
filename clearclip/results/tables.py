"""Tables from records and published figures: which record belongs in which cell, and a table as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from clearclip.results.published import Row, averaged, find_protocol, labels, protocols, published, title

Record = Mapping[str, Any]
#: A note on cells whose weights the user vouches for.
STATED = "* weights as stated by the user"
SECOND_HAND = "† not from the method's own paper or repository (second-hand)"


def protocol_of(record: Record) -> str:
    """The protocol by which a run was made, or "other", and whether images were skipped."""
    if record.get("remark"):
        return "other"
    own = "no" if record["method"] == "CLIP" else ""  # CLIP may have its own threshold
    rows = (None, Row("CLIP", own, "CLIP", "", "", ""))
    ways = [(name, one) for (name, dataset), one in protocols().items() if dataset == record["dataset"]]
    names = (name for name, one in ways if any(one.matches(record["facts"], row) for row in rows))
    return next(names, "other") + (", images skipped" if record.get("skipped") else "")


def belongs(record: Record, row: Row, dataset: str, protocol: str) -> bool:
    """Whether a record is of a row's weights and method, and made on a dataset by a protocol, to the last setting."""
    if record["dataset"] != dataset or record.get("remark") or record.get("skipped"):
        return False
    if record.get("not_in_table_because"):
        return False
    facts, how = record["facts"], find_protocol(protocol, dataset)
    weights = facts["weights"]
    known = ("model", "tag") if not row.clip_type else ("clip_type", "vit_type")
    return (
        [weights[name] for name in known] == [*row.naming.values()]
        and record["method"] == how.label(row.label)
        and weights["origin"] in ("published", "stated")
        and ("source" not in facts["method"] or row.label not in labels())  # no code of others under a published name
        and how.matches(facts, row)
    )


@dataclass(frozen=True)
class Cell:
    """One cell: mIoU in percent, where it exists: measured, published, and of an independent re-run.

    Attributes:
        stated: the measured weights are the published ones by the user's word only.
        source: of the published figure.
    """

    measured: float | None = None
    published: float | None = None
    rerun: float | None = None
    stated: bool = False
    source: str = ""

    @property
    def difference(self) -> float | None:
        """Measured minus published, in points."""
        return None if self.measured is None or self.published is None else self.measured - self.published

    @property
    def marks(self) -> dict[str, str]:
        """What stands behind the measured and the published figure: the first letter of a note, or nothing."""
        return {"measured": STATED[0] * self.stated, "published": SECOND_HAND[0] * ("second-hand" in self.source)}

    def __str__(self) -> str:
        """``80.9 (80.9)``: measured (published)."""
        measured = "–" if self.measured is None else f"{self.measured:.1f}{self.marks['measured']}"
        return measured if self.published is None else f"{measured} ({self.published:.1f}{self.marks['published']})"


def fill_row(table: str, row: Row, datasets: Sequence[str], records: Iterable[Record], protocol: str) -> list[Cell]:
    """The cells of a row: the latest record of each; behind them their mean, where the table has one."""
    records, cells = list(records), []
    for name in datasets:
        found = [record for record in records if belongs(record, row, name, protocol)][-1:]
        measured = found[0]["mIoU"] if found else None
        stated = any(record["facts"]["weights"]["origin"] == "stated" for record in found)
        known, source = published(table, row, name, protocol) or (None, "")
        again, _ = published("rerun", row, name, protocol) or (None, "")
        cells.append(Cell(measured, known, again, stated, source))
    if averaged(table, datasets):
        values = [cell.measured for cell in cells]
        mean = None if None in values else fmean(values)
        known, _ = published(table, row, "average", protocol) or (None, "")
        cells.append(Cell(mean, known, stated=any(cell.stated for cell in cells)))
    return cells


def headings(table: str, datasets: Sequence[str]) -> list[str]:
    """The headings that belong to :func:`fill_row`."""
    return [*map(title, datasets), *(["average"] if averaged(table, datasets) else [])]


def to_markdown(
    table: str, rows: Sequence[Row], datasets: Sequence[str], records: Sequence[Record], protocol: str
) -> str:
    """A table for a README: measured, and the published figure in brackets."""
    names = headings(table, datasets)
    lines = [f"| ViT | system | ClearCLIP | {' | '.join(names)} |", "|---|---|---|" + "---:|" * len(names)]
    for row in rows:
        cells = map(str, fill_row(table, row, datasets, records, protocol))
        lines.append(f"| {row.vit} | {row.name} | {row.clearclip} | {' | '.join(cells)} |")
    text = "\n".join(lines)
    return "\n".join([text, *(f"\n{note}" for note in (STATED, SECOND_HAND) if note[0] in text)])

"""The plan of a table: rows with the same weights, dataset and windows make one pass; what has a result is known."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from mmengine.config import Config

from clearclip.checkpoint_names import BUNDLED_METHOD_OPTIONS
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import CONFIGS, load_config, model_settings
from clearclip.evaluation.own_code import own_classes, own_code_facts
from clearclip.evaluation.run_facts import method_facts, run_facts
from clearclip.evaluation.weight_facts import weights_facts
from clearclip.methods import Method, build_method
from clearclip.model_settings import ModelSettings
from clearclip.results.protocols import find_protocol, protocol_names
from clearclip.results.record import Record
from clearclip.results.table_definitions import Row
from clearclip.utils.devices import choose_device, choose_precision
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest

#: Options of a config that the rows of a table set.
OF_ROWS = ("clip_type", "vit_type", "model_name", "methods", "method", "model_type", "ignore_residual")


#: What is said of a method of the user's own that is not computed again.
OWN_RESULT = "has a result of the same files; what else it reads is not compared (--force repeats it)"


@dataclass
class Group:
    """Cells of a table that one pass over a dataset computes.

    Attributes:
        dataset: its name.
        rows: the rows, each with another method.
        cfg: the config, with the rows' weights.
        overrides: what of the config is overridden.
        limit: images, None for all.
        protocol: by whose protocol.
        imports: files with methods of the user's own.
    """

    dataset: str
    rows: list[Row]
    cfg: Config
    overrides: dict[str, Any]
    limit: int | None
    protocol: str
    imports: Sequence[str] = ()
    _common: dict[str, Any] | None = field(default=None, repr=False)

    def method(self, row: Row) -> Method:
        """How a row's last blocks are computed, with the protocol's options."""
        return build_method(row.method).with_options(find_protocol(self.protocol, self.dataset).method_options)

    @property
    def settings(self) -> ModelSettings:
        """Of the model; the rows' methods take the place of its own."""
        return model_settings(self.cfg)

    @property
    def label(self) -> str:
        """The group in a line of text."""
        names = [row.system for row in self.rows[:3]]
        # The ablation has 24 rows in a group, which would fill the terminal.
        if len(self.rows) > 3:
            names.append("…")
        return f"{self.dataset}, {self.rows[0].vit}: {', '.join(names)}"

    @property
    def images(self) -> int:
        """How many images, as far as is known."""
        return min(self.cfg.get("expected_images", 1), self.limit or sys.maxsize)

    def fingerprints(self, row: Row, device: str | None) -> list[str]:
        """What a row's run would be known by, without and with the user's own code beside it; empty where weights or
        data are not on this machine yet.
        """
        if self._common is None:
            try:
                dataset = CheckedDataset(self.cfg.test_dataloader.dataset, self.limit)
                chosen = choose_device(device or self.settings.device)
                precision = choose_precision(self.settings.precision, chosen)
                self._common = run_facts(self.cfg, dataset, self.settings, chosen, precision)
                self._common["weights"] = weights_facts(self.settings)
                self._common["own code"] = own_code_facts(own_classes(self.cfg, dataset), map(Path, self.imports))
            except Exception:  # of whatever is missing, the evaluation says what it is
                self._common = {}
        if not self._common.get("weights"):
            return []
        model_options = BUNDLED_METHOD_OPTIONS.get(self._common["weights"]["model"])
        facts = {**self._common, "method": method_facts(self.method(row), model_options)}
        own_code = facts.pop("own code")
        return [digest(facts), digest({**facts, "own code": own_code})]


def plan(
    rows: Sequence[Row],
    datasets: Sequence[str],
    overrides: Mapping[str, Any],
    limit: int | None = None,
    protocol: str = "clearclip",
    imports: Sequence[str] = (),
) -> list[Group]:
    """The groups of these rows and datasets. Groups with the same weights follow each other.

    Args:
        overrides: dotted names to values, for every run.
        limit: images per run, None for all.
        protocol: by whose protocol; ``overrides`` go beyond it.
        imports: files with methods of the user's own.

    Raises:
        UserError: an override of what the rows set, or a dataset that the protocol says nothing about.
    """
    for name in overrides:
        # The part before a dot: model.method.alpha is an option of the row's method.
        if name.removeprefix("model.").partition(".")[0] in OF_ROWS:
            raise UserError(f"{name} is what the rows of a table set; choose rows (--rows, --vit), or use eval.py")
    groups: dict[tuple, Group] = {}
    for row, dataset in product(rows, datasets):
        row_overrides = {**_row_overrides(row, dataset, protocol), **overrides}
        key = (dataset, *row.weights.values(), *row.settings_for(dataset).items())
        if key not in groups:
            cfg = load_config(CONFIGS / f"cfg_{dataset}.py", row_overrides)
            groups[key] = Group(dataset, [], cfg, row_overrides, limit, protocol, imports)
        groups[key].rows.append(row)
    weights_in_order = [row.weights for row in rows]
    return sorted(groups.values(), key=lambda group: weights_in_order.index(group.rows[0].weights))


def _row_overrides(row: Row, dataset: str, protocol: str) -> dict[str, Any]:
    """What a row and a protocol change in the config of a dataset, as dotted names to values."""
    overrides: dict[str, Any] = {f"model.{name}": value for name, value in row.weights.items()}
    how = find_protocol(protocol, dataset)
    # The first protocol is that of the configs themselves.
    if protocol != protocol_names()[0]:
        overrides |= {f"model.{name}": value for name, value in how.model.items()}
        overrides["model.name_path"] = str(CONFIGS / how.names_file)
        overrides["test_dataloader.dataset.pipeline.1.scale"] = tuple(how.scale)
    return overrides | {f"model.{name}": value for name, value in row.settings_for(dataset).items()}


def has_result(group: Group, row: Row, records: Sequence[Record], device: str | None) -> bool:
    """Whether a record has the fingerprint that the row's run would have."""
    fingerprints = {record.fingerprint for record in records if not record.remark and not record.skipped}
    return not fingerprints.isdisjoint(group.fingerprints(row, device))


def work_dir(group: Group) -> Path:
    """Where the journals of a group are kept."""
    row = group.rows[0]
    name = f"{' '.join(row.weights.values())} {group.dataset} {group.protocol}"
    return Path("work_dirs") / "tables" / name.replace("/", "-").replace(" ", "_")

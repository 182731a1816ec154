"""The data files beside this module: protocols, tables, published numbers and known traps."""

from __future__ import annotations

import csv
import hashlib
import json
from importlib import resources
from typing import Any


def read_csv(name: str) -> list[dict[str, str]]:
    """The lines of a CSV file, by the names of its columns. A cell that a short line lacks is empty."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), restval=""))


def read_json_file(name: str) -> Any:
    """The content of a JSON file."""
    return json.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def read_options(text: str) -> dict[str, Any]:
    """Options as cells spell them: ``prob_thd=0.2; post=pamr`` to ``{"prob_thd": 0.2, "post": "pamr"}``."""
    options: dict[str, Any] = {}
    for assignment in filter(None, text.split("; ")):
        name, _, value = assignment.partition("=")
        try:
            options[name] = json.loads(value)
        except ValueError:  # a word, which stands there without quotes
            options[name] = value
    return options


def data_digest() -> str:
    """A hash of all data files, by which a workbook that was made from others is known."""
    contents: dict[str, bytes] = {}
    for file in resources.files(__package__).iterdir():
        if file.name.endswith((".csv", ".json")):
            contents[file.name] = file.read_bytes()
    # Folders list their files in any order.
    return hashlib.sha256(b"\0".join(contents[name] for name in sorted(contents))).hexdigest()
